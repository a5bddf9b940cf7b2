"""LLMs from S3 and a web server: only the layers asked for are transferred, over connections that fail."""

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llm4seg.llm.store import stores_in
from llm4seg.llm_sources import remote
from llm4seg.llm_sources.sources import open_source
from llm4seg.utils.errors import InputError, UserError
from tests.import_graph import ROOT
from tests.integration.llm_sources.served import (
    LAYER,
    MB,
    Served,
    assert_is_layer,
    fill,
    header_bytes,
    module_bytes,
    tiny_like,
    write_params,
)
from tests.servers import CountingProxy, WebServer
from tests.tiny_llm import save_llm, section


def test_a_layer_costs_its_own_bytes(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    store = fill(tmp_path, source)
    assert_is_layer(store, llama)
    needed = module_bytes(llama.layers[LAYER], llama.norm) + header_bytes(folders / "single/model.safetensors")
    assert needed <= served.proxy.sent <= 1.01 * needed
    assert (store.source, store.license, store.source_sha256) == (source, "Tiny Community Licence", None)
    said = json.loads((store.folder / "config.json").read_text())
    assert said["licence_file"] == {
        "name": "LICENSE.txt",
        "text": (folders / "single/LICENSE.txt").read_text(),
    }


def test_only_the_shards_that_are_needed_are_opened(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    assert_is_layer(fill(tmp_path, served.folder(folders / "sharded")), llama)
    weight_map = json.loads((folders / "sharded/model.safetensors.index.json").read_text())["weight_map"]
    wanted = {file for name, file in weight_map.items() if name.startswith((f"layers.{LAYER}.", "norm."))}
    assert len(wanted) < len(set(weight_map.values()))
    needed = module_bytes(llama.layers[LAYER], llama.norm) + sum(
        header_bytes(folders / "sharded" / file) for file in wanted
    )
    assert served.proxy.sent <= 1.01 * needed + (folders / "sharded/model.safetensors.index.json").stat().st_size


def test_gguf(served: Served, folders: Path, tmp_path: Path) -> None:
    """Its header is as long as its tokeniser; the layer's bytes are quantized."""
    source = f"{served.folder(folders / 'gguf')}/tiny.gguf"
    here = open_source(section(str(folders / "gguf/tiny.gguf")), tmp_path / "cache")
    needed = here.checkpoint.nbytes(f"layers.{LAYER}", ()) + here.checkpoint._file._start  # type: ignore[attr-defined]
    expected = here.checkpoint.tensors(f"layers.{LAYER}", ())
    found = fill(tmp_path, source).load(LAYER)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert needed <= served.proxy.sent <= 1.01 * needed + 0.01 * MB


@pytest.mark.usefixtures("no_waits")
def test_connections_that_break_and_servers_that_are_busy(
    served: Served,
    folders: Path,
    llama: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the blocks that broke off are read again."""
    monkeypatch.setattr(remote, "BLOCK", MB // 4)
    source = served.folder(folders / "single")
    served.proxy.refusals = [503, 429]
    served.proxy.cuts = [2 * MB, 2 * MB + 100, 4 * MB, 5 * MB]
    assert_is_layer(fill(tmp_path, source), llama)
    needed = module_bytes(llama.layers[LAYER], llama.norm) + header_bytes(folders / "single/model.safetensors")
    assert not served.proxy.cuts
    assert served.proxy.sent <= 1.01 * needed + 4 * remote.PARALLEL * remote.BLOCK
    assert "the server answered 503; trying again in" in capsys.readouterr().err


@pytest.mark.usefixtures("two_attempts")
def test_giving_up(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    served.proxy.limit = 4 * MB
    with pytest.raises(UserError, match=r"model\.safetensors: .+; gave up after 2 attempts, run again later"):
        fill(tmp_path, source)
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.rglob("*.partial"))
    served.proxy.limit = None
    assert_is_layer(fill(tmp_path, source), llama)


@pytest.mark.parametrize("served", ["http"], indirect=True)
def test_an_interrupted_fetch(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a layer."""
    write_params(tmp_path, source=served.folder(folders / "single"), sha256=None)
    served.proxy.rate = 2 * MB
    command = [sys.executable, "-m", "pipelines.fetch_llm", "--params", str(tmp_path / "params.yaml")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as stage:
        wait_until(lambda: served.proxy.sent > 3 * MB)
        stage.send_signal(signal.SIGINT)
        assert "interrupted; the last good outputs are untouched" in stage.communicate(timeout=60)[1]
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    served.proxy.rate = None
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert_is_layer(next(stores_in(tmp_path / "data/llm")), llama)


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("served", ["http"], indirect=True)
def test_a_progress_bar_in_bytes(served: Served, folders: Path, tmp_path: Path) -> None:
    """One bar for all layers, on stderr, where that is a terminal."""
    write_params(tmp_path, source=served.folder(folders / "single"), sha256=None, layers=[0, 1])
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "pipelines.fetch_llm", "--params", str(tmp_path / "params.yaml")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs):
        os.close(theirs)
        shown = "".join(read_all(ours))
    lines = [line for line in shown.replace("\n", "\r").split("\r") if line.startswith("fetch")]
    assert {line.partition(": ")[0] for line in lines} == {f"fetch {served.base}/llm"}
    assert "100%" in lines[-1]
    assert "18.9M/18.9M" in lines[-1]


def read_all(terminal: int) -> Iterator[str]:
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while True:
            yield os.read(terminal, 1 << 16).decode()


def test_a_file_that_changes_while_it_is_read(served: Served, folders: Path, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    other = tmp_path / "model.safetensors"
    other.write_bytes((folders / "single/model.safetensors").read_bytes()[:-1] + b"\x01")

    opened = open_source(section(source), tmp_path / "cache")
    served.put(other, "llm/model.safetensors")
    with pytest.raises(InputError, match=r"llm/model\.safetensors: changed while it was read; run again"):
        opened.checkpoint.tensors(f"layers.{LAYER}", ())


def test_a_changed_file_is_another_source(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    first = fill(tmp_path, source, (0, 1))
    before = served.proxy.sent
    assert fill(tmp_path, source, (1,)).layers == (0, 1)
    assert served.proxy.sent - before < 0.02 * MB  # the header, and no layer
    said = json.loads((first.folder / "config.json").read_text())
    old = {name: value for name, value in said.items() if name != "layer_specs"}  # a store of an earlier version
    (first.folder / "config.json").write_text(json.dumps(old))
    assert fill(tmp_path, source, (1,)).spec(1)
    assert served.proxy.sent - before < 0.04 * MB
    changed = save_llm(tmp_path / "changed", tiny_like(llama, seed=1))
    store = fill(tmp_path, served.folder(changed), (1,))
    assert store.layers == (1,)
    assert store.revision != first.revision
    assert store.sha256(1) != first.sha256(1)


def test_a_server_that_says_nothing_of_changes(web: WebServer, folders: Path, llama: Any, tmp_path: Path) -> None:
    """Without ETag, what is there is compared with the source."""
    web.etags = False
    shutil.copytree(folders / "single", web.folder / "llm")
    source = f"http://127.0.0.1:{web.port}/llm"
    first = fill(tmp_path, source, (1,))
    assert first.revision is None
    inode = first.path(1).stat().st_ino
    assert fill(tmp_path, source, (1,)).path(1).stat().st_ino == inode
    save_llm(web.folder / "llm", tiny_like(llama, seed=1))
    assert fill(tmp_path, source, (1,)).sha256(1) != first.sha256(1)


def test_a_server_without_ranged_reads(folders: Path, llama: Any, tmp_path: Path) -> None:
    server = WebServer.without_ranges(folders / "single")
    proxy, large = CountingProxy(server.port), (folders / "single/model.safetensors").stat().st_size
    source = f"http://127.0.0.1:{proxy.port}"
    proxy.rate = 20 * MB
    refused = rf"model\.safetensors \({large:,} bytes\): its server sends whole files only; either download it"
    with pytest.raises(InputError, match=refused):
        fill(tmp_path, source)
    proxy.rate = None
    assert proxy.sent < large / 4
    assert not list((tmp_path / "cache").rglob("*.safetensors"))

    assert_is_layer(fill(tmp_path, source, whole_files=True), llama)
    before = proxy.sent
    assert_is_layer(fill(tmp_path, source, (1, LAYER), whole_files=True), llama, 1)
    assert proxy.sent - before < large / 4  # the file is still in the cache
    server.close()


def test_a_sharded_folder_without_ranged_reads(folders: Path, llama: Any, tmp_path: Path) -> None:
    server = WebServer.without_ranges(folders / "sharded")
    assert_is_layer(fill(tmp_path, f"http://127.0.0.1:{server.port}", whole_files=True), llama)
    shards = {file.name for file in (tmp_path / "cache/whole").rglob("*.safetensors")}
    assert 0 < len(shards) < len(list((folders / "sharded").glob("*.safetensors")))
    server.close()
