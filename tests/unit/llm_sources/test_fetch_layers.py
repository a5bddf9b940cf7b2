"""Stores of several LLMs: one for each source of what was fetched, one for each name of what is used."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.config.schema import LLM
from llm4seg.llm.store import LayerStore, find_store, named_store, stores_in
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.llm_sources.fetch_layers import fetch_layers
from llm4seg.utils.errors import InputError
from tests.tiny_llm import save_llm, section, tiny_llm


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {"llama": tiny_llm(), "qwen": tiny_llm("qwen2", num_hidden_layers=3, hidden_size=32)}


@pytest.fixture
def here(tmp_path: Path, models: dict[str, Any]) -> Path:
    """A folder with the checkpoints of two LLMs."""
    for name, model in models.items():
        save_llm(tmp_path / name, model)
    return tmp_path


def llms(here: Path, **qwen: Any) -> LLM:
    entry = {"source": str(here / "qwen"), **qwen}
    return LLM.model_validate({**section(here / "llama").model_dump(), "sources": {"qwen": entry}})


def fetch(
    here: Path, needed: dict[str, list[int]], used: dict[str, list[int]] | None = None, wanted: LLM | None = None
) -> dict[str, LayerStore]:
    used = needed if used is None else used
    return fetch_layers(wanted or llms(here), needed, used, here / "llm", here / "used", here / "cache")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_each_name_has_the_layers_of_its_own_llm(here: Path, models: dict[str, Any]) -> None:
    fetch(here, {"default": [0, 1], "qwen": [0, 2]}, {"default": [1], "qwen": [2]})
    assert files(here / "used") == [
        *("config.json", "layer_1.safetensors", "norm.safetensors"),
        *("qwen/config.json", "qwen/layer_2.safetensors", "qwen/norm.safetensors"),
    ]
    for name, model, layer in (("default", "llama", 1), ("qwen", "qwen", 2)):
        store = named_store(here / "used", name)
        assert (store.source, store.layers) == (model, (layer,))
        expected = models[model].layers[layer].state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in store.load(layer).items())
    assert {(store.source, store.layers) for store in stores_in(here / "llm")} == {("llama", (0, 1)), ("qwen", (0, 2))}


def test_one_llm_is_laid_out_as_before_there_were_several(here: Path) -> None:
    fetch(here, {"default": [2]})
    assert files(here / "used") == ["config.json", "layer_2.safetensors", "norm.safetensors"]
    assert LayerStore(here / "used").layers == (2,)


def test_an_llm_of_which_a_width_alone_is_used(here: Path) -> None:
    fetch(here, {"default": [1], "qwen": []})
    store = named_store(here / "used", "qwen")
    assert (store.config["hidden_size"], store.layers) == (32, ())


def test_default_is_not_fetched_where_nothing_uses_it(here: Path) -> None:
    shutil.rmtree(here / "llama")
    fetch(here, {"qwen": [1]})
    assert files(here / "used") == [
        f"qwen/{name}" for name in ("config.json", "layer_1.safetensors", "norm.safetensors")
    ]


def test_a_source_keeps_its_store_whatever_its_name(here: Path) -> None:
    """And whether it is `default`: what was fetched stays, and is not written again."""
    first = fetch(here, {"default": [1], "qwen": [1]})
    before = {name: store.path(1).stat().st_ino for name, store in first.items()}
    swapped = LLM.model_validate({**section(here / "qwen").model_dump(), "sources": {"llama": str(here / "llama")}})
    second = fetch(here, {"default": [1], "llama": [1]}, wanted=swapped)
    assert {name: store.path(1).stat().st_ino for name, store in second.items()} == {
        "llama": before["default"],
        "default": before["qwen"],
    }
    assert named_store(here / "used", "llama").source == "llama"
    assert not (here / "used/qwen").exists()


def test_two_sources_of_one_name_are_not_mixed(here: Path, models: dict[str, Any]) -> None:
    """Folders on this machine are named by their last part."""
    save_llm(here / "other/llama", tiny_llm(seed=1))
    wanted = LLM.model_validate(
        {**section(here / "llama").model_dump(), "sources": {"other": str(here / "other/llama")}}
    )
    for _ in range(2):
        fetch(here, {"default": [1], "other": [1]}, wanted=wanted)
        found = named_store(here / "used", "default").load(1)["mlp.up_proj.weight"]
        other = named_store(here / "used", "other").load(1)["mlp.up_proj.weight"]
        assert torch.equal(found, models["llama"].layers[1].mlp.up_proj.weight)
        assert not torch.equal(found, other)


@pytest.mark.parametrize(
    ("qwen", "layers", "message"),
    [
        (
            {},
            [3],
            r"^model\.llm\.layer \(of the model, an arm or search\.space\) or llm\.sources\.qwen\.layers: "
            r"found layer 3, allowed: 0 to 2 \(qwen\)$",
        ),
        ({"sha256": "0" * 64}, [1], r"^llm\.sources\.qwen\.sha256: found 0{64}, but .*qwen has "),
        (
            {"layer_sha256": {1: "0" * 64}},
            [1],
            r"^llm\.sources\.qwen\.layer_sha256\.1: found 0{64}, but layer 1 of qwen",
        ),
        ({"source": "none"}, [1], r"^llm\.sources\.qwen\.source: none: no such file or folder$"),
    ],
)
def test_a_mistake_names_the_llm_and_leaves_what_was_used(
    here: Path, qwen: dict[str, Any], layers: list[int], message: str
) -> None:
    fetch(here, {"default": [1]})
    with pytest.raises(InputError, match=message):
        fetch(here, {"default": [2], "qwen": layers}, wanted=llms(here, **qwen))
    assert LayerStore(here / "used").layers == (1,)
    assert not [path for path in here.rglob(".*") if "partial" in path.name]


def test_a_checkpoint_that_cannot_be_read_is_named(here: Path) -> None:
    (here / "qwen/config.json").unlink()
    with pytest.raises(InputError, match=r"^llm\.sources\.qwen: .*qwen: has no config\.json"):
        fetch(here, {"qwen": [1]})


def test_the_one_store_of_an_earlier_version_is_kept(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    flat = fill_store(here / "llm", section(here / "llama"), [0, 1], here / "cache")
    before = flat.path(1).stat().st_ino
    with caplog.at_level(logging.INFO, logger="llm4seg"):
        fetch(here, {"default": [1], "qwen": [0]})
    (line,) = [record.getMessage() for record in caplog.records if "each LLM has a folder of its own" in record.message]
    assert line.startswith(f"{here / 'llm'}: the layers of llama are now in llama-")
    kept = next(store for store in stores_in(here / "llm") if store.source == "llama")
    assert (kept.layers, kept.path(1).stat().st_ino) == ((0, 1), before)
    assert not (here / "llm/config.json").exists()


def test_a_damaged_store_of_an_earlier_version_is_fetched_again(here: Path) -> None:
    flat = fill_store(here / "llm", section(here / "llama"), [0, 1], here / "cache")
    (flat.folder / "config.json").write_text("{")
    fetch(here, {"default": [1]})
    assert [store.layers for store in stores_in(here / "llm")] == [(1,)]


def test_what_an_interrupted_stage_left_goes(here: Path) -> None:
    (here / "llm/.gone-0a.partial").mkdir(parents=True)
    fetch(here, {"default": [1]})
    assert not (here / "llm/.gone-0a.partial").exists()


def test_a_models_layers_are_found_whatever_their_llm_is_called(here: Path) -> None:
    fetch(here, {"default": [1], "qwen": [1]})
    qwen = named_store(here / "used", "qwen")
    wanted = {1: qwen.sha256(1)}
    assert find_store(here / "used", wanted, qwen.norm_sha256, "once").folder == here / "used/qwen"
    assert find_store(here / "used", wanted, "0" * 64, "qwen").folder == here / "used/qwen"  # of that name at least
    with pytest.raises(
        InputError, match=r"^model\.llm\.source: found once, but there is no layer store .*/used/once; run"
    ):
        find_store(here / "used", {1: "0" * 64}, None, "once")
