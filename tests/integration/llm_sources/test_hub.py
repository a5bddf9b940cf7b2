"""LLMs from the hub, by way of a server that answers as it does."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm4seg.llm.store import stores_in
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT
from tests.integration.llm_sources.served import LAYER, MB, assert_is_layer, fill, module_bytes, write_params
from tests.servers import CountingProxy, HubServer

REPO = "acme/tiny"


@pytest.fixture
def hub(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Two commits of a repository; `main` is the second."""
    commits = {"v1": "1" * 40, "main": "2" * 40}
    shutil.copytree(folders / "sharded", tmp_path / "hub" / commits["v1"])
    shutil.copytree(folders / "single", tmp_path / "hub" / commits["main"])
    shutil.copy(folders / "gguf/tiny.gguf", tmp_path / "hub" / commits["main"])
    server = HubServer(tmp_path / "hub", REPO, commits)
    address = f"http://127.0.0.1:{server.port}"  # what HF_ENDPOINT sets, which is read on import
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.close()


def test_hub(hub: HubServer, folders: Path, llama: Any, tmp_path: Path) -> None:
    proxy = CountingProxy(hub.port)
    hub.cdn_port = proxy.port
    store = fill(tmp_path, f"hf://{REPO}@v1")
    assert_is_layer(store, llama)
    assert (store.source, store.revision) == (f"hf://{REPO}", hub.commits["v1"])
    assert store.license == "Tiny Community Licence"
    index = (folders / "sharded/model.safetensors.index.json").stat().st_size
    assert proxy.sent <= 1.01 * module_bytes(llama.layers[LAYER], llama.norm) + index + 0.02 * MB


def test_hub_without_a_revision_takes_the_commit_of_main(hub: HubServer, llama: Any, tmp_path: Path) -> None:
    store = fill(tmp_path, f"hf://{REPO}", (0,))
    assert store.revision == hub.commits["main"]
    assert fill(tmp_path, f"hf://{REPO}@{hub.commits['main']}", (1,)).layers == (0, 1)  # the same source
    hub.commits["main"] = hub.commits["v1"]
    assert fill(tmp_path, f"hf://{REPO}", (1,)).layers == (1,)  # another one


def test_hub_gguf_and_its_sha256(hub: HubServer, folders: Path, tmp_path: Path) -> None:
    """The hub says what a large file's sha256 is."""
    right = hashlib.sha256((folders / "gguf/tiny.gguf").read_bytes()).hexdigest()
    source = f"hf://{REPO}/tiny.gguf"
    with pytest.raises(InputError, match=rf"llm\.sha256: found {'0' * 64}, but hf://.*tiny\.gguf has {right}"):
        fill(tmp_path, source, sha256="0" * 64)
    store = fill(tmp_path, source, sha256=right)
    assert (store.source, store.source_sha256) == (source, right)
    assert json.loads((store.folder / "config.json").read_text())["licence_file"]["name"] == "LICENSE.txt"


def test_hub_folder_and_its_sha256(hub: HubServer, folders: Path, llama: Any, tmp_path: Path) -> None:
    command = "LC_ALL=C sha256sum config.json model*.safetensors* | sha256sum"
    right = subprocess.run(command, shell=True, cwd=folders / "sharded", capture_output=True, text=True).stdout[:64]
    store = fill(tmp_path, f"hf://{REPO}@v1", sha256=right)
    assert_is_layer(store, llama)
    assert store.source_sha256 == right


def test_hub_token(hub: HubServer, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the hub, and not to where the hub redirects to."""
    hub.token = "hf_secret"
    with pytest.raises(InputError, match=rf"^hf://{REPO}: .*(HF_TOKEN|hf auth login)"):
        fill(tmp_path, f"hf://{REPO}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store = fill(tmp_path, f"hf://{REPO}")
    assert_is_layer(store, llama)
    assert hub.headers_seen
    assert not any("Authorization" in headers for headers in hub.headers_seen)
    assert "secret" not in (store.folder / "config.json").read_text()


def test_hub_token_beside_a_netrc(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is for other machines goes neither to the hub nor to where it redirects to."""
    (tmp_path / "netrc").write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fill(tmp_path / "open", f"hf://{REPO}").load(LAYER)
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fill(tmp_path / "private", f"hf://{REPO}").load(LAYER)
    assert not any("Authorization" in headers for headers in hub.headers_seen)


def test_hub_connection_that_breaks(hub: HubServer, llama: Any, tmp_path: Path) -> None:
    proxy = CountingProxy(hub.port)
    hub.cdn_port, proxy.cuts = proxy.port, [3 * MB]
    assert_is_layer(fill(tmp_path, f"hf://{REPO}"), llama)
    assert not proxy.cuts


def test_hub_offline(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_HUB_OFFLINE=1 asks for, which is read on import: refused at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=rf"^hf://{REPO}: .*[oO]ffline"):
        fill(tmp_path, f"hf://{REPO}")
    assert not hub.requests


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"hf://{REPO}@v9", rf"^hf://{REPO}@v9: no such repository or revision"),
        ("hf://acme/none", r"^hf://acme/none: no such repository or revision"),
        ("hf://tiny", r"^llm\.source: Invalid HF URI"),
        (f"hf://datasets/{REPO}", r"^llm\.source: .*a dataset on the hub, allowed: a model"),
        (f"hf://{REPO}/none", rf"^hf://{REPO}@2+/none: has no config\.json"),
    ],
)
def test_hub_mistakes(hub: HubServer, tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fill(tmp_path, source)


def test_hub_in_the_stage(hub: HubServer, llama: Any, tmp_path: Path) -> None:
    """As a user runs it, with HF_ENDPOINT in the environment."""
    write_params(tmp_path, source=f"hf://{REPO}@v1", sha256=None)
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.port}", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "pipelines.fetch_llm", "--params", str(tmp_path / "params.yaml")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_is_layer(next(stores_in(tmp_path / "data/llm")), llama)
