"""Files in, masks out: scored by hand, they give what `evaluate` gives, to the digit."""

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import llm4seg
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.evaluation.evaluate import evaluate_cases
from llm4seg.models.saved import as_trained, load_trained
from llm4seg.utils.files import read_json
from pipelines.fetch_llm import fetch_llm
from pipelines.prepare import prepare
from pipelines.search import search
from pipelines.split import split as split_stage
from tests.lesion_volumes import VOLUMES, write_lesions
from tests.saved_model import save_random_model
from tests.tiny import tiny_config, write_llama

IDENTITY = {"model.bottleneck": "identity"}
KINDS: dict[str, dict[str, Any]] = {
    "slices": {"data.spatial_dims": 2, "data.grid": "resize", "data.size": [32, 32], "data.intensity": "zscore"},
    "resized volumes": {"data.grid": "resize", "data.size": [16, 16, 8], "data.intensity": "unit"} | IDENTITY,
    "volumes in patches": IDENTITY,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    write_lesions(folder / "raw", 4)
    write_llama(folder / "llama")
    return folder


def workspace(root: Path, name: str, changes: dict[str, Any]) -> Config:
    """The data and a model of one kind, in a folder of its own."""
    config = tiny_config(root / name).override(VOLUMES | {"data.root": str(root / "raw"), "search.trials": 0})
    config = config.override({"llm.source": str(root / "llama"), "data.folder.group": None} | changes)
    if not config.paths.prepared.exists():
        for stage in (fetch_llm, prepare, split_stage, search):
            stage(config)
        save_random_model(config)
    return config


@pytest.fixture(scope="module", params=KINDS)
def config(root: Path, request: pytest.FixtureRequest) -> Config:
    return workspace(root, request.param.replace(" ", "-"), KINDS[request.param])


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    return 2 * float((predicted & reference).sum()) / float(predicted.sum() + reference.sum())


OPTIONS = {"evaluation.tta": [0, 1], "evaluation.postprocess": ["largest:bright", "min:20"]}


@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_scores_of_predicted_files_are_evaluates(config: Config, options: dict[str, Any]) -> None:
    """With the same test-time augmentation and post-processing, which is of whole volumes."""
    config = config.override(options)
    data = as_trained(config.paths.model, Prepared(config.paths.prepared))
    network = load_trained(config.paths.model, config.paths.llm_used)
    rows, volumes = evaluate_cases(network, data, [*data.cases], config.evaluation)
    expected = {(row["case"], row["class"]): row["dice"] for row in volumes or rows}
    section = config.evaluation
    model = llm4seg.load(config.paths.model, tta=section.tta, postprocess=section.postprocess)
    assert len(expected) == 8
    labels = set[int]()
    for number in range(4):
        name = f"case-{number}"
        predicted = model.predict(config.data.root / "images" / f"{name}.nii.gz")
        reference = np.asarray(nibabel.load(config.data.root / "masks" / f"{name}.nii.gz").dataobj)
        assert (predicted.shape, predicted.dtype) == (reference.shape, np.uint8)
        for value, label in enumerate(model.classes, start=1):
            assert dice(predicted == value, reference == value) == expected[name, label]
        labels |= set(np.unique(predicted).tolist())
    assert labels == {0, 1, 2}


def test_an_array_or_a_tensor_is_predicted_as_its_file_is(config: Config) -> None:
    data, model = Prepared(config.paths.prepared), llm4seg.load(config.paths.model)
    path = config.data.root / "images" / "case-1.nii.gz"
    one = model.read(path)
    assert one.geometry is not None
    file = nibabel.load(path)
    assert np.array_equal(one.to_file(one.image[0]), np.asarray(file.dataobj))
    expected = model.predict(path)
    for array in (one.image, torch.from_numpy(one.image.copy()), one.image[0]):
        found = model.predict(array, one.spacing)
        assert np.array_equal(one.to_file(found), expected)
    result = model.segment(path)
    assert np.allclose(result.affine, file.affine)
    assert result.spacing == pytest.approx(file.header.get_zooms())
    assert (result.unit, data.cases.keys() & {"case-1", "case-1-005"} != set()) == ("mm", True)


def test_probabilities_are_those_of_which_labels_are_the_largest(config: Config) -> None:
    model, path = llm4seg.load(config.paths.model), config.data.root / "images" / "case-2.nii.gz"
    labels, of_classes = model.predict(path), model.predict_probabilities(path)
    assert (of_classes.shape, of_classes.dtype) == ((2, *labels.shape), np.float32)
    every = np.stack([1 - of_classes.sum(axis=0), *of_classes])
    assert every.min() > -1e-6
    ranked = np.sort(every, axis=0)
    sure = ranked[-1] - ranked[-2] > 1e-5
    assert sure.mean() > 0.9
    assert np.array_equal(every.argmax(axis=0)[sure], labels[sure])


def test_an_ensembles_probabilities_are_the_mean_and_its_labels_theirs(config: Config, tmp_path: Path) -> None:
    second = save_random_model(config.override({"paths.model": str(tmp_path / "second"), "training.seed": 5}), 1)
    path = config.data.root / "images" / "case-3.nii.gz"
    both = [llm4seg.load(folder).predict_probabilities(path) for folder in (config.paths.model, second)]
    assert np.abs(both[0] - both[1]).max() > 0.1
    model = llm4seg.load([config.paths.model, second])
    mean, labels = model.predict_probabilities(path), model.predict(path)
    np.testing.assert_allclose(mean, (both[0] + both[1]) / 2, atol=1e-6)
    every = np.stack([1 - mean.sum(axis=0), *mean])
    ranked = np.sort(every, axis=0)
    sure = ranked[-1] - ranked[-2] > 1e-5
    assert np.array_equal(every.argmax(axis=0)[sure], labels[sure])
    with pytest.raises(llm4seg.InputError, match="module: found an ensemble of 2, allowed: one model; see `modules`"):
        _ = model.module


def test_networks_of_other_logits_are_no_ensemble(pictures_model: Path, tmp_path: Path) -> None:
    """One class is one sigmoid after bce_dice, and a softmax of two channels after dice_ce."""
    other = tmp_path / "other"
    shutil.copytree(pictures_model, other)
    loss = read_json(other / "model.json")["config"]["training"]["loss"]
    changed = {"bce_dice": "dice_ce", "dice_ce": "bce_dice"}[loss]
    text = (other / "model.json").read_text(encoding="utf-8")
    (other / "model.json").write_text(text.replace(f'"loss": "{loss}"', f'"loss": "{changed}"'), encoding="utf-8")
    with pytest.raises(
        llm4seg.InputError, match=r"other: found channels of logits \d, allowed: \d, as of the model in"
    ):
        llm4seg.load([pictures_model, other])


def test_a_tensor_of_half_precision_and_a_picture_for_a_model_of_volumes(
    pictures_model: Path, slices_model: Path
) -> None:
    path = pictures_model.parents[1] / "raw" / "images" / "0.png"
    model, values = llm4seg.load(pictures_model), np.asarray(Image.open(path))
    halves = torch.from_numpy(values).bfloat16()
    assert np.array_equal(model.predict(halves), model.predict(halves.float()))
    assert not model.segment(path).notices
    assert "is a picture" in llm4seg.load(slices_model).segment(path).notices[0]


def test_slices_that_pass_the_network_together_are_the_same(root: Path) -> None:
    config = workspace(root, "slices", KINDS["slices"])
    path = config.data.root / "images" / "case-0.nii.gz"
    one, seven = (llm4seg.load(config.paths.model, batch=batch).predict_probabilities(path) for batch in (1, 7))
    np.testing.assert_allclose(one, seven, atol=1e-5)  # sums of batches of other sizes


def test_constant_slices_are_background(root: Path) -> None:
    """`prepare` leaves them out, so that no model has seen one."""
    model = llm4seg.load(workspace(root, "slices", KINDS["slices"]).paths.model)
    image = np.random.default_rng(0).integers(0, 200, (20, 22, 4)).astype(np.int16)
    whole = model.predict(image)
    assert whole[..., 2].any()
    image[..., 2] = 7
    without = model.predict(image)
    assert not without[..., 2].any()
    assert np.array_equal(np.delete(without, 2, axis=2), np.delete(whole, 2, axis=2))
    assert not model.predict(np.zeros((20, 22, 3), np.int16)).any()
    assert not model.predict_probabilities(np.zeros((20, 22, 3), np.int16)).any()


def test_volumes_that_are_sliced_otherwise_are_predicted_along_the_models_axis(root: Path, tmp_path: Path) -> None:
    model = llm4seg.load(workspace(root, "slices", KINDS["slices"]).paths.model)
    assert model.preprocessing[0].view == "axial"
    image = np.random.default_rng(0).integers(0, 200, (20, 9, 22)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, np.diag([1.0, 4.0, 1.0, 1.0])), tmp_path / "coronal.nii.gz")
    result = model.segment(tmp_path / "coronal.nii.gz")
    assert result.notices == (
        f"{tmp_path / 'coronal.nii.gz'} has coronal slices, but the model was trained on axial ones",
    )
    axial = image.transpose(1, 0, 2)[::-1]  # rows to the back, columns to the right, slices to the head
    assert np.array_equal(result.labels.transpose(1, 0, 2)[::-1], model.predict(axial))


def test_pictures(tmp_path: Path) -> None:
    """PNG files, of three channels; a gray one is read as the published data sets of color pictures are."""
    random = np.random.default_rng(0)
    for number in range(6):
        labels = np.zeros((30, 36), np.uint8)
        labels[5 + number : 15 + number, 8:20] = 255
        image = np.where(labels[..., None] > 0, (200, 80, 90), (60, 100, 120)) + random.integers(0, 30, (30, 36, 3))
        for kind, values in (("images", image.astype(np.uint8)), ("masks", labels)):
            (tmp_path / "raw" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "raw" / kind / f"{number}.png")
    changes = {"data.dataset": "folder", "data.root": str(tmp_path / "raw"), "data.classes": {"lesion": [255]}}
    changes |= {"data.size": [32, 32], "data.intensity": "unit", "model.bottleneck": "identity"}
    changes |= {"training.loss": "bce_dice", "search.trials": 0}
    config = tiny_config(tmp_path).override(changes)
    for stage in (prepare, split_stage, search):
        stage(config)
    model, data = llm4seg.load(save_random_model(config)), Prepared(config.paths.prepared)
    assert model.preprocessing[0].view is None
    rows, _ = evaluate_cases(model.module, data, [*data.cases], config.evaluation)
    for row in rows:
        path = tmp_path / "raw" / "images" / f"{row['case']}.png"
        predicted = model.predict(str(path))
        reference = np.array(Image.open(tmp_path / "raw" / "masks" / path.name)) > 0
        assert dice(predicted == 1, reference) == row["dice"]
        assert np.array_equal(model.predict(np.moveaxis(np.array(Image.open(path)), -1, 0)), predicted)
        probability = model.predict_probabilities(path)[0]
        assert np.array_equal(probability > 0.5, predicted == 1)
    gray = np.array(Image.open(path))[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert np.array_equal(model.predict(tmp_path / "gray.png"), model.predict(np.stack([gray] * 3)))
