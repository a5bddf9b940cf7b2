"""What `fit` refuses before it trains."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from llm4seg.config import Config
from llm4seg.data.augment import check_flips
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import Trainer
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, write_json


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
