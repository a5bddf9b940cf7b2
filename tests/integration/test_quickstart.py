"""The notebook docs/quickstart.ipynb, run cell by cell in a folder that the pipeline's stages have made."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import dice

import llm4seg
from llm4seg.data.prepared import Prepared
from tests.import_graph import ROOT
from tests.saved_model import save_random_model
from tests.tiny import prepare_workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of random weights, one of them where the notebook finds the other model."""
    folder = tmp_path_factory.mktemp("project")
    config = prepare_workspace(folder)
    save_random_model(config)
    save_random_model(config.override({"paths.model": str(folder / ".cache/other-model"), "training.seed": 5}))
    return folder


def run_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the notebook's cells leave."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LLM4SEG_HOME", str(folder))
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    notebook = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    return names


def check_scores(names: dict[str, Any], column: str, model: llm4seg.SegmentationModel) -> None:
    """Each Dice against SciPy's, of masks predicted anew."""
    data = Prepared(Path("data/prepared"))
    for row in names["scores"].to_dict("records"):
        image, reference = data.original(row["case"])
        (value,) = model.labels[row["class"]]
        pair = [np.ravel(labels) == value for labels in (model.predict(image), reference)]
        expected = 1 - dice(*pair) if np.any(pair) else np.nan
        assert row[column] == pytest.approx(expected, nan_ok=True)


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_two_models_are_compared(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_cells(workspace, monkeypatch)
    assert set(names["scores"]["case"]) == set(json.loads(Path("data/split.json").read_text())["test"])
    check_scores(names, "model", llm4seg.load("outputs/model"))
    check_scores(names, "other", llm4seg.load(".cache/other-model"))
    assert (names["scores"]["difference"].abs() > 0.01).any()
    drawn = [axis.images[1].get_array().filled(0) for axis in names["axes"]]
    _, reference = Prepared(Path("data/prepared")).original(names["case"])
    assert not drawn[0].any()
    assert np.array_equal(drawn[1], reference)
    assert np.array_equal(drawn[2], names["mask"])


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_without_another_model_the_same_one_in_bfloat16_is(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workspace, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("other-model"))
    names = run_cells(tmp_path, monkeypatch)
    check_scores(names, "other", llm4seg.load("outputs/model", dtype="bfloat16"))
