"""`dvc plots show` of what dvc.yaml declares, and of a live training, with outputs as stages leave them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from llm4seg.analysis.results import write as write_analysis
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.evaluation.confusion import Confusion
from llm4seg.study.results import StudyResult
from llm4seg.study.results import write as write_study
from llm4seg.tracking.dvclive_files import DVCLiveFiles
from llm4seg.training.history import write_history
from tests.import_graph import ROOT


def plots(folder: Path) -> dict[str, Any]:
    """What `dvc plots show` shows, by name; it must succeed without a complaint."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "plots", "show", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown: dict[str, Any] = json.loads(done.stdout)
    assert not shown.get("errors"), shown["errors"]
    found: dict[str, Any] = shown["data"]
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy2(ROOT / name, tmp_path / name)
    for command in (("git", "init", "--quiet"), (sys.executable, "-m", "dvc", "init", "--quiet")):
        subprocess.run(command, cwd=tmp_path, check=True)
    outputs = tmp_path / "outputs"
    (outputs / "evaluation" / "overlays").mkdir(parents=True)
    write_history(
        outputs / "history.csv", [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "val_dice": 0.5, "lr": 0.1}]
    )
    cases = pd.DataFrame({"case": ["a"], "class": ["cyst"], "reference_size": [4], "dice": [0.7]})
    cases.to_csv(outputs / "evaluation" / "cases.csv", index=False)
    confusion = Confusion(LabelScheme(("cyst",)))
    confusion.add(torch.tensor([[0, 1, 1]], dtype=torch.uint8), torch.tensor([[0, 0, 1]], dtype=torch.uint8))
    confusion.write(outputs / "evaluation")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(outputs / "evaluation" / "overlays" / "best.png")
    off = StudyResult({}, *[pd.DataFrame()] * 4)
    write_study(outputs / "study", off)
    write_analysis(outputs / "analysis", None)
    (outputs / "metrics.json").write_text("{}")
    return tmp_path


def test_all_that_dvc_yaml_declares(repository: Path) -> None:
    """Without a study first."""
    assert {"loss", "dice", "test cases", "confusion"} <= {*plots(repository)}
    pd.DataFrame({"arm": ["llm"], "reference": ["cnn"], "difference": [0.1]}).to_csv(
        repository / "outputs" / "study" / "comparisons.csv", index=False
    )
    shown = plots(repository)
    assert {"loss", "dice", "test cases", "confusion", "study"} <= set(shown)
    assert any(name.endswith("best.png") for name in shown)
    shares = [
        (point["reference"], point["predicted"])
        for content in shown["confusion"]
        for point in content["content"]["data"]["values"]
    ]
    assert {pair: shares.count(pair) for pair in shares} == {
        ("background", "background"): 50,
        ("background", "cyst"): 50,
        ("cyst", "cyst"): 100,
    }


def test_a_live_training(repository: Path) -> None:
    tracker = DVCLiveFiles(repository / "outputs" / "live")
    for epoch in (1, 2):
        tracker.row({"epoch": epoch, "train_loss": 1 / epoch, "val_dice_a b": 0.25 * epoch})
    tracker.picture(2, 0, repository / "outputs" / "evaluation" / "overlays" / "best.png")
    shown = plots(repository)
    for name in ("train_loss.tsv", "val_dice_a b.tsv", "case-1.png"):
        assert any(one.endswith(name) for one in shown), f"{name}: not in {[*shown]}"
    metrics = subprocess.run(
        [sys.executable, "-m", "dvc", "metrics", "show", "--json"], cwd=repository, capture_output=True, check=True
    )
    files = json.loads(metrics.stdout)[""]["data"]
    assert files[str(Path("outputs") / "live" / "metrics.json")]["data"]["val_dice_a b"] == 0.5
