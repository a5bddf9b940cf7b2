"""A pickle in the place of any file that is read runs nothing, and is refused in one line."""

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llm4seg.config import Config
from llm4seg.data.prepared import MANIFEST, Prepared
from llm4seg.data.split import read_split
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.sources import open_source
from llm4seg.models.saved import WEIGHTS, load_trained, save_trained
from llm4seg.released.checkpoint_file import read_official
from llm4seg.training.checkpoint import DESCRIPTION, STATE, Checkpoint, Progress
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import UserError

Read = tuple[Path, Callable[[], Any]]  # a file, and what reads it


class Malicious:
    """Makes a file when it is unpickled carelessly."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def pickles(mark: Path) -> list[bytes]:
    """As torch.save writes them, and bare."""
    saved = io.BytesIO()
    torch.save({"state_dict": Malicious(mark)}, saved)
    return [saved.getvalue(), pickle.dumps(Malicious(mark))]


def of_a_checkpoint(name: str) -> Callable[[Config, Path], Read]:
    def place(config: Config, folder: Path) -> Read:
        model, optimizer, weights = ({"weight": torch.zeros(2)} for _ in range(3))
        Checkpoint(Progress(), model, optimizer, weights).write(folder)
        return folder / name, lambda: Checkpoint.read(folder)

    return place


def of_a_trained_model(name: str) -> Callable[[Config, Path], Read]:
    def place(config: Config, folder: Path) -> Read:
        data = Prepared(config.paths.prepared)
        save_file(assemble(config, data).trainable_state_dict(), folder / "weights")
        save_trained(config.paths.model, folder / "weights", config, data, "torch")
        return config.paths.model / name, lambda: load_trained(config.paths.model, config.paths.llm_used)

    return place


def of_the_prepared_data(name: str) -> Callable[[Config, Path], Read]:
    def place(config: Config, folder: Path) -> Read:
        copy = Path(shutil.copytree(config.paths.prepared, folder / "prepared"))
        case = next(iter(Prepared(copy).cases))
        return next(copy.glob(name)), lambda: (Prepared(copy).resampled(case), Prepared(copy).original(case))

    return place


def of_the_layer_store(name: str) -> Callable[[Config, Path], Read]:
    def place(config: Config, folder: Path) -> Read:
        copy = Path(shutil.copytree(config.paths.llm_used, folder / "store"))
        return copy / name, lambda: LayerStore(copy).load(1)

    return place


def of_an_llm(name: str) -> Callable[[Config, Path], Read]:
    def place(config: Config, folder: Path) -> Read:
        copy = Path(shutil.copytree(config.llm.source, folder / "llm"))
        section = config.override({"llm.source": str(copy)}).llm

        def read() -> None:
            open_source(section, folder).checkpoint.tensors("layers.1", ["self_attn.q_proj.weight"])

        return copy / name, read

    return place


def the_split(config: Config, folder: Path) -> Read:
    copy = Path(shutil.copy(config.paths.split, folder))
    return copy, lambda: read_split(copy)


def a_released_checkpoint(config: Config, folder: Path) -> Read:
    torch.save({"weight": torch.zeros(2)}, folder / "official.pth")
    return folder / "official.pth", lambda: read_official(folder / "official.pth")


PLACES: dict[str, Callable[[Config, Path], Read]] = {
    "a checkpoint's description": of_a_checkpoint(DESCRIPTION),
    "a checkpoint's state": of_a_checkpoint(STATE),
    "a checkpoint's weights": of_a_checkpoint(WEIGHTS),
    "a trained model's description": of_a_trained_model("model.json"),
    "a trained model's weights": of_a_trained_model(WEIGHTS),
    "the manifest": of_the_prepared_data(MANIFEST),
    "a shard of the grid": of_the_prepared_data("grid*.safetensors"),
    "a shard of native images": of_the_prepared_data("native*.safetensors"),
    "the split": the_split,
    "the layer store's description": of_the_layer_store("config.json"),
    "a layer": of_the_layer_store("layer_1.safetensors"),
    "an LLM's config": of_an_llm("config.json"),
    "an LLM's weights": of_an_llm("model.safetensors"),
    "a released checkpoint": a_released_checkpoint,
}


@pytest.mark.parametrize("name", PLACES)
def test_it_runs_nothing_and_is_refused_in_one_line(config: Config, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "executed"
    file, read = PLACES[name](config, tmp_path)
    read()  # sound as it is
    for evil in pickles(mark):
        file.unlink()  # and not what a memory map of the sound one still shows
        file.write_bytes(evil)
        with pytest.raises(UserError) as raised:
            read()
        assert file.name in str(raised.value)
        assert "\n" not in str(raised.value)
    assert not mark.exists()


def test_these_pickles_do_run_where_they_are_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickles(tmp_path / "executed")[1])
    assert (tmp_path / "executed").exists()
