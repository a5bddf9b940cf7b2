"""What is told of a training while it runs, read back with the trackers' own readers."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.models.saved import WEIGHTS
from llm4seg.tracking import watch as watch_module
from llm4seg.tracking.tracker import check_installed
from llm4seg.tracking.watch import Watch, live_folder, watched
from llm4seg.training.live import Live, Snapshot
from llm4seg.training.run import Event, LocalRun, Row
from llm4seg.training.trainer import Trainer, fit
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import sha256_file

ROWS: list[Row] = [
    {"epoch": 1, "train_loss": 0.9, "val_loss": 0.8, "val_dice": 0.25, "lr": 0.003},
    {"epoch": 2, "train_loss": 0.7, "val_loss": 0.6, "val_dice": 0.5, "lr": 0.002},
    {"epoch": 3, "train_loss": 0.5, "lr": 0.001},  # without a validation
]
DICE = {1: {"lesion 1": 0.0, "lesion 2": 0.5}, 2: {"lesion 1": 0.25, "lesion 2": 0.75}}


def snapshot(case: str) -> Snapshot:
    labels = np.zeros((32, 32), np.uint8)
    labels[8:20, 8:20] = 1
    return Snapshot.pack(case, image=np.eye(32, dtype=np.float16)[None], reference=labels, predicted=labels)


def events() -> list[Event]:
    return [
        "a log line",
        Live(1, DICE[1]),
        ROWS[0],
        Live(2, DICE[2], (snapshot("a"), snapshot("b"))),
        ROWS[1],
        ROWS[2],
    ]


def tell_with_an_interruption(config: Config) -> None:
    """Broken off after the second epoch, which the checkpoint has; the second process is told of it again."""
    with pytest.raises(KeyboardInterrupt), watched(config, "train-a", []) as watch:  # noqa: PT012
        for event in events()[:5]:
            watch(event)
        raise KeyboardInterrupt
    assert live_folder(config, "train-a").exists()
    with watched(config, "train-a", ROWS[:1]) as watch:
        for event in events()[3:]:
            watch(event)
    assert not live_folder(config, "train-a").exists()


def told(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected(name: str) -> list[tuple[int, float]]:
    """The steps and values of a metric."""
    rows = [row | {f"val_dice_{one}": dice for one, dice in DICE.get(int(row["epoch"]), {}).items()} for row in ROWS]
    return [(int(row["epoch"]), row[name]) for row in rows if name in row]


NAMES = ["train_loss", "val_loss", "val_dice", "lr", "val_dice_lesion 1", "val_dice_lesion 2"]


def test_the_live_history_has_each_epoch_once(config: Config) -> None:
    tell_with_an_interruption(config)
    rows = told(config.paths.tracking / "finished" / "train-a")
    assert [*rows[0]] == ["epoch", "train_loss", "val_loss", "val_dice", "lr", "val_dice_lesion 1", "val_dice_lesion 2"]
    for name in NAMES:
        assert [(int(row["epoch"]), float(row[name])) for row in rows if row[name]] == expected(name)
    assert not list(config.paths.runs.iterdir())
    pictures = sorted(path.name for path in (config.paths.tracking / "finished" / "train-a").glob("*.png"))
    assert pictures == ["epoch-0002-case-1.png", "epoch-0002-case-2.png"]


def test_what_a_killed_process_left_half_written_or_untold_is_made_good(config: Config) -> None:
    """A line that it did not finish, and an epoch that only the checkpoint has."""
    watch = Watch(config, "train-a")
    watch(ROWS[0])
    path = live_folder(config, "train-a") / "history.csv"
    path.write_text(path.read_text(encoding="utf-8") + "2,0.7,0.", encoding="utf-8")
    with watched(config, "train-a", ROWS[:2]) as watch:
        assert [row["epoch"] for row in told(path.parent)] == ["1", "2"]
        watch(ROWS[2])
        assert [float(row["train_loss"]) for row in told(path.parent)] == [0.9, 0.7, 0.5]


def test_tensorboard(config: Config) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell_with_an_interruption(config.override({"tracking.to": "tensorboard"}))
    (folder,) = (config.paths.tracking / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    for name in NAMES:
        found = [(one.step, one.value) for one in events.Scalars(name)]
        assert found == [(step, pytest.approx(value)) for step, value in expected(name)]
    (image,) = events.Images("validation case 1")
    assert (image.step, image.width > 100) == (2, True)


def test_mlflow(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = config.override({"tracking.to": "mlflow"})
    tell_with_an_interruption(config)
    from mlflow import MlflowClient

    client = MlflowClient((config.paths.tracking / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("llm4seg")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("train-a", "FINISHED")
    assert run.data.params["training.batch_size"] == str(config.training.batch_size)
    for name in NAMES:
        history = client.get_metric_history(run.info.run_id, name)
        assert [(one.step, one.value) for one in history] == expected(name)
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "pictures")]
    assert pictures == ["pictures/epoch-0002-case-1.png", "pictures/epoch-0002-case-2.png"]


def test_wandb_offline(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tell_with_an_interruption(config.override({"tracking.to": "wandb"}))
    runs = list((config.paths.tracking / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 2  # a file a process
    assert len({path.name for path in runs}) == 1  # of one run
    written = b"".join(path.read_bytes() for path in sorted(runs))
    values = [str(value).encode() for _, value in expected("val_dice_lesion 2")]
    assert all(value in written for value in values)
    assert len(list((config.paths.tracking / "wandb").glob("offline-run-*/files/media/images/*.png"))) == 2


def test_dvclive_files(config: Config) -> None:
    tell_with_an_interruption(config.override({"tracking.to": "dvclive"}))
    folder = config.paths.history.parent / "live"
    assert json.loads((folder / "metrics.json").read_text()) == {**ROWS[2], "step": 3}
    for name in NAMES:
        header, *lines = (folder / "plots" / "metrics" / f"{name}.tsv").read_text().splitlines()
        assert header == f"step\t{name}"
        assert [(int(step), float(value)) for step, value in (line.split("\t") for line in lines)] == expected(name)
    with Image.open(folder / "plots" / "images" / "case-2.png") as image:
        assert image.width > 100


def fail(*arguments: Any) -> None:
    raise OSError("no space left\non device")


def test_a_tracker_that_fails_says_so_once_and_the_rest_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llm4seg.tracking.dvclive_files.write_json", fail)
    tell_with_an_interruption(config.override({"tracking.to": "dvclive"}))
    assert len(told(config.paths.tracking / "finished" / "train-a")) == 3
    line = "train: tracking.to: dvclive failed and is left out from here on: OSError: no space left on device"
    assert capsys.readouterr().err.splitlines() == [line] * 2  # once in each process


def test_pictures_that_fail_and_a_history_that_fails_end_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch_module, "draw_snapshot", fail)
    config.paths.runs.parent.mkdir(exist_ok=True)
    config.paths.runs.write_text("a file where a folder should be")
    with watched(config, "train-a", []) as watch:
        for event in events():
            watch(event)
    assert "the live history failed" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["tensorboard", "mlflow", "wandb"])
def test_without_its_package_one_line_before_the_training(
    config: Config, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.setattr("llm4seg.utils.extras.find_spec", lambda module: None)
    with pytest.raises(InputError, match=r"pip install 'llm4seg\[track\]'") as raised:
        check_installed(config.override({"tracking.to": to}))
    assert "\n" not in str(raised.value)
    check_installed(config)


class Listening(LocalRun):
    """A run that keeps what validations tell."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.told: list[Live] = []

    def show(self, live: Live) -> None:
        self.told.append(live)


def test_a_training_computes_the_same_whoever_looks(group: None, config: Config, tmp_path: Path) -> None:
    quiet = fit(config, LocalRun(tmp_path / "quiet"))
    run = Listening(tmp_path / "watched")
    assert fit(config.override({"tracking.to": "tensorboard", "tracking.pictures": 2}), run) == quiet
    weights = [sha256_file(tmp_path / name / "checkpoint" / WEIGHTS) for name in ("quiet", "watched")]
    assert weights[0] == weights[1]
    assert [live.epoch for live in run.told] == [1, 2, 3]
    for live, row in zip(run.told, quiet, strict=True):
        assert list(live.dice) == list(Prepared(config.paths.prepared).classes)
        assert np.nanmean([*live.dice.values()]) == pytest.approx(row["val_dice"])
    assert [len(live.snapshots) for live in run.told] == [0, 2, 0]


def test_a_snapshot_is_the_case_with_its_prediction(group: None, config: Config, tmp_path: Path) -> None:
    run = Listening(tmp_path)
    trainer = Trainer(config.override({"tracking.pictures": 1}), run)
    trainer.validate()
    data, val = Prepared(config.paths.prepared), read_split(config.paths.split).val
    labeled = [case for case in val if data.resampled(case)[1].any()]
    assert [one.case for one in run.told[0].snapshots] == labeled[:2]
    network: Callable[..., torch.Tensor] = trainer.validation.logits
    for one in run.told[0].snapshots:
        image, labels = data.resampled(one.case)
        arrays = one.unpack()
        np.testing.assert_allclose(arrays["image"], image.numpy(), atol=0.01)
        np.testing.assert_array_equal(arrays["reference"], labels.numpy())
        with torch.no_grad():
            predicted = network(image[None]).argmax(1)[0]
        assert (arrays["predicted"] == predicted.numpy()).mean() > 0.99  # but for ties in a batch of another size
