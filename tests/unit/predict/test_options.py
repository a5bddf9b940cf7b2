"""Options of prediction in words, and whether they fit a model and its images."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.data.preprocessing import Preprocessing
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
