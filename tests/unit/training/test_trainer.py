"""What `fit` refuses before it trains, and what it leaves in memory."""

import gc
import math
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from llm4seg.config import Config
from llm4seg.data.augment import check_flips, check_turned_flips, check_turns
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, read_split, write_split
from llm4seg.evaluation.evaluate import evaluate
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import Trainer, assemble
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json
from tests.finished_run import write_cases
from tests.lesion_volumes import VOLUMES
from tests.tiny import tiny_config
from tests.unit.datasets.test_volume_writer import VOLUME_CLASSES, drawn


def test_a_validation_part_without_any_class_is_refused(config: Config, tmp_path: Path) -> None:
    """Its Dice would be no number as soon as the network predicts nothing there, as it should."""
    prepared = Path(shutil.copytree(config.paths.prepared, tmp_path / "prepared"))
    val = read_split(config.paths.split).val
    for shard in prepared.glob("*.safetensors"):
        tensors = load_file(shard)
        empty = {name for name in tensors if name in {f"{case}/labels" for case in val}}
        save_file({name: tensor * (name not in empty) for name, tensor in tensors.items()}, shard)
    message = rf"split\.json: found nothing but background in the {len(val)} cases of the validation part"
    with pytest.raises(InputError, match=message):
        Trainer(config.override({"paths.prepared": str(prepared)}), LocalRun(tmp_path))


def test_quarter_turns_need_square_pixels(config: Config, tmp_path: Path) -> None:
    """Also where the spacing is known with the volumes alone. Headers round: a hundredth is no difference."""
    data = Prepared(config.paths.prepared)
    turned = config.training.augment.model_copy(update={"quarter_turns": True})
    for spacing in (None, (1.0, 1.001, 3.0), (0.5, 0.5, 0.5)):
        data.spacing = spacing
        check_turns(data, turned)
    data.spacing = (1.0, 0.5, 3.0)
    check_turns(data, config.training.augment)
    with pytest.raises(InputError, match=r"quarter_turns: found true, .* data\.spacing is 0\.5 x 1 mm to the right"):
        check_turns(data, turned)


def test_volumes_known_to_be_turned_only_by_their_own_spacing(tmp_path: Path) -> None:
    config = tiny_config(tmp_path).override(VOLUMES | {"data.spacing": "auto", "training.augment.quarter_turns": True})
    cases = [drawn((20, 24, 10), 1 + k % 2, spacing=(2.0, 1.0, 2.0)) for k in range(4)]
    data = write_cases(
        config, [replace(case, id=f"c{k}", group=f"g{k}") for k, case in enumerate(cases)], VOLUME_CLASSES
    )
    write_split(config.paths.split, Split("by hand", 0, ("c0", "c1"), ("c2",), ("c3",), (), ()))
    assert data.spacing == (2.0, 1.0, 2.0)
    with pytest.raises(InputError, match=r"^training\.augment\.quarter_turns: found true"):
        Trainer(config, LocalRun(tmp_path))


@pytest.mark.usefixtures("group")
def test_a_slice_an_empty_and_a_small_volume_are_trained_on_and_measured(tmp_path: Path) -> None:
    """All are padded to the patch; where nothing is labeled, patches lie anywhere."""
    here = {"data.spacing": [1, 1, 1], "model.bottleneck": "identity", "data.intensity": "zscore", "training.epochs": 1}
    config = tiny_config(tmp_path).override(VOLUMES | here)
    shapes = {"slice": (20, 24, 1), "empty": (20, 24, 10), "small": (5, 6, 3), "val": (20, 24, 9), "test": (9, 40, 1)}
    cases = [replace(drawn(shape, 1 + len(name) % 2), id=name, group=name) for name, shape in shapes.items()]
    cases[1] = replace(cases[1], labels=np.zeros(shapes["empty"], np.uint8))
    write_cases(config, cases, VOLUME_CLASSES)
    write_split(config.paths.split, Split("by hand", 0, ("slice", "empty", "small"), ("val",), ("test",), (), ()))
    trainer = Trainer(config, LocalRun(tmp_path / "run"))
    (row,) = trainer.train()
    assert all(math.isfinite(value) for value in row.values())
    model = assemble(config, trainer.data)
    model.load_weights(trainer.weights)
    measured = evaluate(model, trainer.data, trainer.split, config.evaluation)
    assert [row["reference_size"] for row in measured.rows] == [(cases[4].labels == label).sum() for label in (1, 2)]


def test_flips_of_left_and_right_need_pairs_of_classes(config: Config, tmp_path: Path) -> None:
    """A mirrored left kidney would be trained as one on the wrong side."""
    prepared = Path(shutil.copytree(config.paths.prepared, tmp_path / "prepared"))
    manifest = read_json(prepared / "manifest.json")
    manifest["classes"] = ["left_kidney", "right_kidney"]
    write_json(prepared / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"flip: found \[1\], .* but not the label left_kidney"):
        Trainer(config.override({"paths.prepared": str(prepared), "training.augment.flip": [1]}), LocalRun(tmp_path))
    cases = list(Prepared(prepared).cases)
    check_flips(Prepared(prepared), cases, [0])
    write_json(prepared / "manifest.json", manifest | {"paired": [[1, 2]]})
    check_flips(Prepared(prepared), cases, [0, 1])
    turned = {"paths.prepared": str(prepared), "training.augment.quarter_turns": True}
    both = turned | {"training.augment.flip": [0, 1]}
    one = config.override(turned | {"training.augment.flip": [1]})
    with pytest.raises(InputError, match=r"flip: found \[0, 1\] with .*quarter_turns, .* allowed: without 0 "):
        Trainer(config.override(both), LocalRun(tmp_path))
    check_turned_flips(Prepared(prepared), cases, one.training.augment)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_training_that_is_over_frees_its_memory_at_once(config: Config, tmp_path: Path, precision: str) -> None:
    """Without the garbage collector, which a GPU without memory for the next training would not call."""
    changes = {"engine.name": "torch", "training.epochs": 1, "engine.precision": precision}
    gc.collect()
    gc.disable()
    try:
        trainer: Any = Trainer(config.override(changes), LocalRun(tmp_path))
        trainer.train()
        engine = trainer.engine
        parts = (trainer, trainer.feed, engine, engine._model, engine._flat.parameter, engine._optimizer)
        left = [weakref.ref(part) for part in parts]
        del trainer, engine, parts
        assert [reference() for reference in left] == [None] * len(left)
    finally:
        gc.enable()
