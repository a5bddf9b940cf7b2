"""What differs from the last commit, in a repository of its own; and what of it no training reads."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from llm4seg.config import Config
from llm4seg.config.changes import notes
from pipelines.search import trainings as of_the_search
from pipelines.study import trainings as of_the_study
from tests.params import PARAMS, load, values

DIFFERING = "parameters that differ from the last commit: "
UNREAD = "warning: of these have no effect: "


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a committed params.yaml below the top of its repository."""
    path = tmp_path_factory.mktemp("repository") / "below" / "params.yaml"
    path.parent.mkdir()
    path.write_text(PARAMS.read_text(encoding="utf-8"))
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"]):
        subprocess.run(["git", *command], cwd=path.parent, check=True)
    return path


def changed(path: Path, changes: dict[str, Any]) -> Config:
    """The config after changes of the file."""
    return load(path.parent, values(changes))


def test_a_file_as_committed_has_no_line_in_whatever_form(checkout: Path) -> None:
    assert notes(checkout, [changed(checkout, {})]) == []


def test_what_differs_is_one_line(checkout: Path) -> None:
    config = changed(checkout, {"model.llm.layer": [3, 7], "optimizer.clip_norm": 1.0, "report.title": "x" * 300})
    (line,) = notes(checkout, [config])
    assert line.startswith(f"{DIFFERING}model.llm.layer [3, 7] (14), optimizer.clip_norm 1.0 (null), report.title")
    assert len(line) < 300


def test_a_long_list_is_cut(checkout: Path) -> None:
    names = [f"training.augment.{name}" for name in ("rotate", "scale", "shift", "intensity")]
    names += [f"optimizer.{name}" for name in ("lr", "weight_decay", "momentum", "clip_norm")] + [
        "split.val",
        "split.test",
    ]
    (line, _) = notes(checkout, [changed(checkout, dict.fromkeys(names, 0.11))])
    assert line.endswith(", and 2 more")
    assert line.count("0.11") == 8


def test_outside_of_git_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert notes(path, [changed(path, {"training.seed": 9})]) == []


@pytest.mark.parametrize(
    ("changes", "unread"),
    [
        (
            {"model.bottleneck": "identity", "model.llm.weights": "random"},
            "model.llm.weights (model.bottleneck is identity)",
        ),
        ({"model.bottleneck": "mlp", "model.llm.weights": "random"}, "model.llm.weights (model.bottleneck is mlp)"),
        ({"model.bottleneck": "mlp", "model.llm.adapter.activation": "relu"}, None),
        ({"model.llm.adapter.activation": "relu"}, "model.llm.adapter.activation (model.llm.adapter.kind is linear)"),
        ({"model.llm.lora.rank": 4}, "model.llm.lora.rank (model.llm.training is frozen)"),
        ({"model.llm.lora.rank": 4, "model.llm.training": "lora"}, None),
        ({"optimizer.momentum": 0.5}, "optimizer.momentum (optimizer.name is adamw)"),
        ({"optimizer.momentum": 0.5, "optimizer.name": "sgd"}, None),
        ({"training.patch.share": 0.3}, "training.patch.share (data.grid is resize)"),
        ({"data.spacing": [1, 1, 1]}, "data.spacing (data.grid is resize)"),
        ({"evaluation.overlap": 0.25}, "evaluation.overlap (data.grid is resize)"),
        (
            {"data.grid": "spacing", "data.spatial_dims": 3, "data.size": [9]},
            "data.size (data.grid is spacing)",
        ),
        ({"data.grid": "spacing", "data.spatial_dims": 3, "training.patch.share": 0.3}, None),
        ({"model.unet.residual_units": 1}, "model.unet.residual_units (model.backbone is cmunext)"),
        ({"model.unet.residual_units": 1, "model.backbone": "unet"}, None),
        ({"model.unet_plus_plus.features": [8] * 6, "model.backbone": "unet++"}, None),
    ],
)
def test_what_the_training_does_not_read_is_named(checkout: Path, changes: dict[str, Any], unread: str | None) -> None:
    _, *warning = notes(checkout, [changed(checkout, changes)])
    assert warning == ([UNREAD + unread] if unread else [])


def test_a_study_and_a_search_read_what_any_training_of_theirs_reads(checkout: Path) -> None:
    changes = {"model.bottleneck": "identity", "model.llm.dtype": "bf16", "optimizer.momentum": 0.5, "study.repeats": 1}
    arms = {"cnn": {"preset": "none"}, "llm": {"preset": "frozen"}}
    config = changed(checkout, changes | {"study.arms": arms, "study.references": ["cnn"]})
    assert notes(checkout, of_the_study(with_best(config, checkout)))[1:] == [
        UNREAD + "optimizer.momentum (optimizer.name is adamw)"
    ]
    space = {"optimizer.name": ["adamw", "sgd"]}
    config = changed(checkout, changes | {"study.repeats": 0, "search.trials": 2, "search.space": space})
    assert notes(checkout, of_the_search(config))[1:] == [UNREAD + "model.llm.dtype (model.bottleneck is identity)"]


def with_best(config: Config, path: Path) -> Config:
    """A config whose search has overridden nothing."""
    (path.parent / "best.json").write_text("{}")
    return config.override({"paths.search": str(path.parent)})
