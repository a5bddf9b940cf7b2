"""Options of prediction in words, and whether they fit a model and its images."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llm4seg.config import Config
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.preprocessing import Preprocessing
from llm4seg.inference.grid_logits import NetworkInput
from llm4seg.inference.predictor import Predictor
from llm4seg.models.saved import SECTIONS
from llm4seg.predict.input_image import from_array, from_files
from llm4seg.predict.options import checked_mirroring, postprocess_steps, tta_axes
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import write_json

SIDES = LabelScheme(("left kidney", "right kidney", "spleen"))


def preprocessing(**changes: object) -> Preprocessing:
    values = {"spatial_dims": 2, "channels": 1, "size": [8, 8], "view": "axial"}
    return Preprocessing.parse(values | changes)


def test_axes_that_do_not_fit_a_model_are_refused() -> None:
    assert checked_mirroring([], preprocessing(), SIDES) is None
    assert checked_mirroring([0], preprocessing(), SIDES) is not None
    assert checked_mirroring([1], preprocessing(view="sagittal"), SIDES) is not None
    with pytest.raises(InputError, match=r"tta: found 2, allowed: 0 to 1"):
        checked_mirroring([2], preprocessing(), SIDES)
    with pytest.raises(InputError, match=r"exchanges left and right, but not left kidney; allowed: other axes"):
        checked_mirroring([1], preprocessing(), SIDES)
    found = checked_mirroring([1], preprocessing(paired=[[1, 2]]), SIDES)
    assert found is not None
    assert found.exchanged == (1, 0, 2)


class ByChirality(nn.Module):
    """As a network that was trained with turns: label 1 left of the way from the spine (2.0) to the middle, else 2."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))  # by which a network's device is known

    def forward(self, images_NCS: Tensor) -> Tensor:
        logits_NKS = torch.zeros(len(images_NCS), 3, *images_NCS.shape[2:])
        logits_NKS[:, 0] = 0.5
        for image_S, logits_KS in zip(images_NCS[:, 0], logits_NKS, strict=True):
            middle = (torch.tensor(image_S.shape) - 1) / 2
            ahead = middle - (image_S == 2).nonzero()[0]
            for place in (image_S == 1).nonzero():
                to_right = ahead[0] * (place - middle)[1] - ahead[1] * (place - middle)[0] < 0
                logits_KS[2 if to_right else 1, place[0], place[1]] = 1.0
        return logits_NKS


def test_a_network_that_was_trained_with_turns_is_mirrored_along_left_and_right_alone(config: Config) -> None:
    """Mirrored along the rows, a picture looks as one that is mirrored along the columns and turned, whose organs have
    changed sides.
    """
    image, wanted = torch.zeros(1, 7, 7), np.zeros((7, 7))
    image[0, 6, 3], image[0, 3, 1], image[0, 3, 5] = 2, 1, 1
    wanted[3, 1], wanted[3, 5] = 1, 2
    scheme, model = LabelScheme(("left kidney", "right kidney")), preprocessing(paired=[[1, 2]])
    found = {}
    for axes in ((), (1,), (0, 1)):
        tta = checked_mirroring(axes, model, scheme)
        found[axes] = Predictor([ByChirality()], scheme, tta=tta).labels([NetworkInput(image, (7, 7))]).numpy()
    assert np.array_equal(found[()], wanted)
    assert np.array_equal(found[(1,)], found[()])
    assert not np.array_equal(found[(0, 1)], found[()])
    plain = config.training.augment
    for turned in (plain.model_copy(update={"quarter_turns": True}), plain.model_copy(update={"rotate": 180.0})):
        assert checked_mirroring([1], model, scheme, [plain, turned]) is not None
        for axes in ([0], [0, 1]):
            with pytest.raises(
                InputError, match=r"tta: found \[0.*\], .* with training.augment.*; allowed: without 0$"
            ):
                checked_mirroring(axes, model, scheme, [plain, turned])
        assert checked_mirroring([0, 1], preprocessing(), LabelScheme(("tumor",)), [turned]) is not None
        assert checked_mirroring([0, 1], preprocessing(view="sagittal"), scheme, [turned]) is not None
    assert checked_mirroring([0], model, scheme, [plain]) is not None


def test_options_in_words(tmp_path: Path) -> None:
    assert (tta_axes(None, []), tta_axes("0,1", [])) == ((), (0, 1))
    assert (postprocess_steps(None), postprocess_steps("largest:liver,min:10")) == ((), ("largest:liver", "min:10"))
    for word in ("x", "0,0", "-1", ""):
        with pytest.raises(InputError, match="--tta: found"):
            tta_axes(word, [])


def test_the_axes_of_the_training_are_those_that_all_models_mirrored(config: Config, tmp_path: Path) -> None:
    folders = []
    for name, flip in {"a": [0, 1], "b": [1]}.items():
        plain = config.override({"training.augment.flip": flip}).plain()
        write_json(tmp_path / name / "model.json", {"config": {one: plain[one] for one in SECTIONS}})
        folders.append(tmp_path / name)
    assert (tta_axes("trained", folders[:1]), tta_axes("trained", folders)) == ((0, 1), (1,))


@pytest.mark.parametrize(("shape", "axis"), [((20, 24, 1), 1), ((20, 1, 24), 1), ((1, 20, 24), None)])
def test_left_and_right_are_where_the_images_file_says(
    tmp_path: Path, shape: tuple[int, ...], axis: int | None
) -> None:
    """A model of axial slices reads one slice of another view, too: across a sagittal one there is left and right."""
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    model = preprocessing()
    assert from_files([tmp_path / "a.nii.gz"], model).left_right_axis(model) == axis
    assert from_array(np.zeros((8, 8)), model, None, "the model").left_right_axis(model) == 1


@pytest.mark.parametrize("coded", [True, False])
def test_a_file_that_does_not_say_how_it_is_oriented_is_named(tmp_path: Path, coded: bool) -> None:
    values = np.random.default_rng(0).normal(size=(8, 9, 3)).astype(np.float32)
    file = nibabel.Nifti1Image(values, np.eye(4) if coded else None)
    path = tmp_path / "a.nii.gz"
    nibabel.save(file, path)
    assert bool(nibabel.load(path).header["sform_code"]) == coded
    notices = from_files([path], preprocessing(view="axial", spatial_dims=2)).notices
    said = [line for line in notices if line.startswith(f"{path} does not say how it is oriented")]
    assert len(said) == (not coded)
    assert all("to run to the patient's right and front and head;" in line for line in said)
