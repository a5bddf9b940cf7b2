"""Volumes of their own shapes, from files to the report: trained in patches, measured by sliding windows."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from llm4seg.config import Config
from llm4seg.data.intensity import Intensity
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.evaluation.evaluate import evaluate
from llm4seg.models.check_data import check_data
from llm4seg.models.saved import WEIGHTS, as_trained, trained_intensity
from llm4seg.training.checkpoint import Checkpoint
from llm4seg.training.inputs import training_inputs
from llm4seg.training.run import LocalRun, Row
from llm4seg.training.trainer import Trainer
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, sha256_file, write_json
from pipelines.evaluate import evaluate as evaluate_stage
from pipelines.prepare import prepare
from pipelines.report import report
from pipelines.study import study
from pipelines.train import train
from tests.finished_run import ByIntensity
from tests.integration.test_engines import ENGINES, assert_same
from tests.lesion_volumes import BODY, LEVELS, prepare_lesions, write_lesions
from tests.worker_group import fit_on

SMALL = {"training.batch_size": 4, "optimizer.name": "sgd", "optimizer.lr": 0.002}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """What `train` reads: four volumes to train on, in two patches each, two to validate on and two to test."""
    return prepare_lesions(tmp_path_factory.mktemp("volumes"), SMALL)


@pytest.fixture
def config(prepared: Config, tmp_path: Path) -> Config:
    names = (
        *("model", "history", "evaluation", "metrics", "report", "pictures"),
        *("runs", "cache", "study", "study_runs", "tracking"),
    )
    return prepared.override({f"paths.{name}": str(tmp_path / getattr(prepared.paths, name).name) for name in names})


@pytest.fixture(scope="module")
def by_one(prepared: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return fit_on(1, prepared.override(ENGINES["torch"]), tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "engine"), [(2, "torch"), (2, "zero 3"), (4, "torch"), (3, "zero 3")])
def test_any_number_of_workers_computes_what_one_does(
    config: Config, tmp_path: Path, workers: int, engine: str, by_one: list[Row]
) -> None:
    """Volumes to validate on take other numbers of windows; some workers have none."""
    assert_same(fit_on(workers, config.override(ENGINES[engine]), tmp_path / "run"), by_one)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_within_an_epoch_and_gone_on_with_is_equal_bit_for_bit(
    config: Config, tmp_path: Path, workers: int
) -> None:
    config = config.override(ENGINES["torch"])
    whole = fit_on(workers, config, tmp_path / "whole")
    for stop_after in (1, 2):
        assert fit_on(workers, config, tmp_path / "parts", stop_after) == []
    assert Checkpoint.read(tmp_path / "parts" / "checkpoint").progress.step > 0
    assert fit_on(workers, config, tmp_path / "parts") == whole
    files = [tmp_path / part / "checkpoint" / WEIGHTS for part in ("whole", "parts")]
    assert sha256_file(files[0]) == sha256_file(files[1])


def by_level(intensity: Intensity) -> ByIntensity:
    """A model that knows which intensity is which label, as the network sees it."""
    (of_image,) = intensity.foreground
    return ByIntensity([(level - of_image.mean) / of_image.std for level in (BODY, *LEVELS)])


def test_a_model_that_knows_the_answer_is_right_on_the_original_grid(prepared: Config, tmp_path: Path) -> None:
    """At a fine grid, and without noise to be misled by: what is lost is the border of voxels cut by resampling."""
    fine = {"data.spacing": [0.8, 0.8, 1.2], "training.patch.size": [16, 16, 16]}
    config = prepared.override(fine | {"paths.prepared": str(tmp_path / "fine")})
    prepare(config)
    data, split = training_inputs(config)
    result = evaluate(by_level(data.intensity_of(split.train)), data, split, config.evaluation)
    assert len(result.rows) == 2 * len(split.test)
    for row in result.rows:
        labels = data.original(row["case"])[1]
        assert row["tp"] + row["fn"] == (labels == 1 + data.classes.index(row["class"])).sum()
        assert row["dice"] > 0.9
    assert result.summary["baseline"]["dice"]["mean"] > 0.9


def test_on_the_volumes_own_grid_it_is_right_everywhere(prepared: Config, tmp_path: Path) -> None:
    """Nothing is resampled there, so that windows, crop and place must be exact: a Dice of 1."""
    raw = tmp_path / "raw"
    for kind in ("images", "masks"):
        (raw / kind).mkdir(parents=True)
        for number in (0, 3, 6):
            name = f"{kind}/case-{number}.nii.gz"
            shutil.copy(prepared.data.root / name, raw / name)
    own = {"data.root": str(raw), "data.spacing": [1.0, 1.0, 2.0], "training.patch.size": [16, 8, 8]}
    config = prepared.override(own | {"paths.prepared": str(tmp_path / "own")})
    prepare(config)
    data = Prepared(config.paths.prepared)
    data = data.for_network((16, 8, 8), data.intensity_of(data.cases))
    split = read_split(config.paths.split)
    cases = {"train": ("case-0",), "val": (), "test": ("case-3", "case-6"), "left_out": ()}
    split = type(split)(**{**split.__dict__, **cases})
    result = evaluate(by_level(data.normalization), data, split, config.evaluation)
    assert [row["dice"] for row in result.rows] == [1.0] * 4
    assert [row["hd95"] for row in result.rows] == [0.0] * 4


def test_the_test_part_changes_nothing_in_a_training(config: Config, tmp_path: Path) -> None:
    """Nor does the validation part's image: statistics, samples and patches are of the training part."""
    other = Path(shutil.copytree(config.paths.prepared, tmp_path / "prepared"))
    split = read_split(config.paths.split)
    for shard in other.glob("grid-*.safetensors"):
        tensors = load_file(shard)
        strange = {name: tensor * 3 for name, tensor in tensors.items() if name.split("/")[0] in split.test}
        save_file({name: strange.get(name, tensor).contiguous() for name, tensor in tensors.items()}, shard)
    changed = config.override({"paths.prepared": str(other)})
    ours, theirs = training_inputs(config), training_inputs(changed)
    assert ours[0].normalization == theirs[0].normalization
    fewer, _ = training_inputs(config.override({"training.fraction": 0.5}))
    assert fewer.normalization != ours[0].normalization
    cases = ours[1].train
    assert fewer.normalization in [
        ours[0].intensity_of(pair) for pair in zip(cases, cases[1:] + cases[:1], strict=True)
    ] + [ours[0].intensity_of((one, two)) for one in cases for two in cases if one < two]


def test_an_epoch_has_several_patches_of_each_case(config: Config, tmp_path: Path, group: None) -> None:
    trainer = Trainer(config.override({"training.patch.per_case": 3, "engine.name": "torch"}), LocalRun(tmp_path))
    assert len(trainer.samples) == 3 * len(trainer.split.train)
    assert trainer.steps == 3
    images, labels = trainer.feed.read(0, [0, 1, 2])
    assert images.shape == (3, 1, 16, 16, 8)
    assert labels.shape == (3, 16, 16, 8)
    assert len({image.sum().item() for image in images}) == 3  # of one case
    again = trainer.feed.read(0, [2, 0])
    assert torch.equal(again[0], images[[2, 0]])
    assert not torch.equal(trainer.feed.read(1, [0])[0], images[:1])


@pytest.mark.slow
@pytest.mark.parametrize(("patch", "size"), [([16, 16, 8], [16, 16, 8]), ("auto", [24, 28, 20])])
def test_a_training_is_evaluated_studied_and_reported(
    config: Config, tmp_path: Path, patch: str | list[int], size: list[int]
) -> None:
    """In patches of a given size; and of that for fields of 22 x 26 x 30 and 22 x 30 x 42 mm, their median rounded up
    to multiples of 4.
    """
    here: dict[str, Any] = {
        "training.patch.size": patch,
        "cluster.launcher": "process",
        "study.repeats": 1,
        "study.arms": {"cnn": {"model.bottleneck": "identity"}, "llm": {}},
        "study.references": ["cnn"],
        "study.other_data": str(_other_hospital(config, tmp_path)),
        "evaluation.bootstrap": 100,
    }
    config = config.override(here)
    train(config)
    description = read_json(config.paths.model / "model.json")["data"]
    assert (description["spacing"], description["size"]) == ([1.0, 1.0, 2.0], size)
    data, split = training_inputs(config)
    assert trained_intensity(config.paths.model) == data.normalization
    evaluate_stage(config)
    metrics = read_json(config.paths.metrics)
    assert metrics["cases"] == len(split.test)
    study(config)
    compared = pd.read_csv(config.paths.study / "study.csv")
    assert set(compared["data"]) == {"raw", "elsewhere"}
    assert set(compared.query("data == 'elsewhere'")["case"]) == {f"case-{number}" for number in range(3)}
    report(config)
    page = config.paths.report.read_text()
    assert "1.00 \u00d7 1.00 \u00d7 2.00 mm" in page
    assert "in patches of " + " \u00d7 ".join(map(str, size)) in page
    _go_on_from(config, tmp_path)


def _other_hospital(config: Config, tmp_path: Path) -> Path:
    """A second data set of the same classes at the same spacing."""
    write_lesions(tmp_path / "elsewhere", 3)
    other = {"data.root": str(tmp_path / "elsewhere"), "paths.prepared": str(tmp_path / "prepared-elsewhere")}
    prepare(config.override(other))
    return tmp_path / "prepared-elsewhere"


def _go_on_from(config: Config, tmp_path: Path) -> None:
    """Another model begins with this one, normalized as it was trained; data at another spacing do not fit it."""
    plain = read_json(config.paths.model / "model.json")
    plain["data"]["normalization"]["foreground"][0]["mean"] += 1
    write_json(config.paths.model / "model.json", plain)
    begun, _ = training_inputs(config.override({"training.init_from": str(config.paths.model)}))
    assert begun.normalization == trained_intensity(config.paths.model) != training_inputs(config)[0].normalization
    assert as_trained(config.paths.model, Prepared(config.paths.prepared)).normalization == begun.normalization
    other = config.override({"data.spacing": [2, 2, 2], "paths.prepared": str(tmp_path / "other")})
    prepare(other)
    with pytest.raises(InputError, match=r"found the spacing \[2\.0, 2\.0, 2\.0\] .*, allowed: \[1\.0, 1\.0, 2\.0\]"):
        check_data(config.paths.model, Prepared(other.paths.prepared))
