"""Files in, masks out: scored by hand, they give what `evaluate` gives, to the digit."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import llm4seg
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.evaluation.evaluate import evaluate_cases
from llm4seg.models.saved import as_trained, load_trained
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


def test_scores_of_predicted_files_are_evaluates(config: Config) -> None:
    data = as_trained(config.paths.model, Prepared(config.paths.prepared))
    network = load_trained(config.paths.model, config.paths.llm_used)
    rows, volumes = evaluate_cases(network, data, [*data.cases], 1.0)
    expected = {(row["case"], row["class"]): row["dice"] for row in volumes or rows}
    model = llm4seg.load(config.paths.model)
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
