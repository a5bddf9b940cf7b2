"""LLMs from S3, a web server and the hub: only the layers asked for are transferred, over connections that fail."""

import contextlib
import fcntl
import hashlib
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import tenacity
import torch
import yaml
from gguf import GGMLQuantizationType as Kind

from llm4seg.errors import InputError
from llm4seg.llm.fill import fill_store
from llm4seg.llm.sources import open_source
from llm4seg.llm.storage import retry
from llm4seg.llm.storage.transport import CHUNK
from llm4seg.llm.store import LayerStore
from tests.code_map import ROOT
from tests.integration.servers import BUCKET, S3, CountingProxy, HubServer, WebServer
from tests.tiny_llm import save_llm, section, tiny_llm, write_gguf

LAYER = 2
MB = 1 << 20
UNDER_WAY = 2 * CHUNK  # what is lost when we hang up: in the proxy's hands and in ours
BROKEN = 7 * CHUNK  # what is lost when the server does: aiohttp reads 2 chunks and 256 KiB ahead, and one is on its way


@pytest.fixture(scope="module")
def llama() -> Any:
    """Four layers of 6 MB each, in bf16: large enough for one per cent to mean something."""
    shape = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "head_dim": 64}
    return tiny_llm(**shape, num_key_value_heads=4, vocab_size=2048).bfloat16()


@pytest.fixture(scope="module")
def folders(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LLM as one file, in shards of about a layer each, and as GGUF."""
    root = tmp_path_factory.mktemp("llms")
    for name, options in {"single": {}, "sharded": {"max_shard_size": "7MB"}}.items():
        folder = save_llm(root / name, llama, **options)
        (folder / "LICENSE.txt").write_text("Tiny Community Licence\n\nDo as you like.\n")
    (root / "gguf").mkdir()
    write_gguf(root / "gguf" / "tiny.gguf", llama.float(), Kind.Q8_0)
    llama.bfloat16()
    return root


@dataclass
class Served:
    """A place from which an LLM is served, by way of a proxy that counts."""

    base: str  # of llm.source
    proxy: CountingProxy
    put: Callable[[Path, str], None]  # a file to a path there

    def folder(self, folder: Path, name: str = "llm") -> str:
        for file in folder.iterdir():
            self.put(file, f"{name}/{file.name}")
        return f"{self.base}/{name}"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    (tmp_path / "www").mkdir()
    server = WebServer(tmp_path / "www")
    yield server
    server.close()


@pytest.fixture(params=["http", "s3"])
def served(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    if request.param == "http":
        server: WebServer = request.getfixturevalue("web")
        proxy = CountingProxy(server.port)
        base, put = f"http://127.0.0.1:{proxy.port}", lambda file, path: _copy(file, server.folder / path)
    else:
        s3: S3 = request.getfixturevalue("s3")
        proxy = CountingProxy(s3.port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        client = boto3.client("s3", endpoint_url=s3.url)
        base, put = f"s3://{BUCKET}", lambda file, path: client.upload_file(str(file), BUCKET, path)
    yield Served(base, proxy, put)
    proxy.close()


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts, without a wait."""
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(retry, "WAIT", tenacity.wait_none())


def fill(root: Path, source: str, layers: tuple[int, ...] = (LAYER,), **llm: Any) -> LayerStore:
    wanted = section(source).model_copy(update=llm)
    return fill_store(root / "store", wanted, layers, root / "cache")


def parts(root: Path) -> list[Path]:
    return list((root / "cache" / "parts").glob("*"))


def assert_is_layer(store: LayerStore, llama: Any, layer: int = LAYER) -> None:
    expected = llama.layers[layer].state_dict()
    found = store.load(layer)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def header_bytes(file: Path) -> int:
    with file.open("rb") as opened:
        return 8 + int(struct.unpack("<Q", opened.read(8))[0])


def module_bytes(*modules: Any) -> int:
    return sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())


def test_a_layer_costs_its_own_bytes(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    store = fill(tmp_path, source)
    assert_is_layer(store, llama)
    needed = module_bytes(llama.layers[LAYER], llama.norm) + header_bytes(folders / "single/model.safetensors")
    assert needed <= served.proxy.sent <= 1.01 * needed
    assert (store.source, store.licence, store.source_sha256) == (source, "Tiny Community Licence", None)
    said = json.loads((store.folder / "config.json").read_text())
    assert said["licence_file"] == {
        "name": "LICENSE.txt",
        "text": (folders / "single/LICENSE.txt").read_text(),
    }
    assert not parts(tmp_path)


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
    """Its header is as long as its tokeniser; the layer's bytes are quantised."""
    source = f"{served.folder(folders / 'gguf')}/tiny.gguf"
    with open_source(section(str(folders / "gguf/tiny.gguf")), tmp_path / "cache") as here:
        needed = here.checkpoint.nbytes(f"layers.{LAYER}", ()) + here.checkpoint._file._start  # type: ignore[attr-defined]
        expected = here.checkpoint.tensors(f"layers.{LAYER}", ())
    found = fill(tmp_path, source).load(LAYER)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert needed <= served.proxy.sent <= 1.01 * needed + 0.01 * MB


def test_connections_that_break_and_servers_that_are_busy(
    served: Served, folders: Path, llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = served.folder(folders / "single")
    served.proxy.refusals = [503, 429]
    served.proxy.cuts = [2 * MB, 2 * MB + 100, 4 * MB, 5 * MB]
    assert_is_layer(fill(tmp_path, source), llama)
    needed = module_bytes(llama.layers[LAYER])
    assert not served.proxy.cuts
    assert served.proxy.sent <= 1.01 * (needed + 4 * BROKEN)
    assert "the server answered 503; trying again in" in capsys.readouterr().err


@pytest.mark.usefixtures("no_patience")
def test_giving_up_and_going_on(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    served.proxy.limit = 4 * MB
    with pytest.raises(InputError, match=r"model\.safetensors: .+; gave up after 2 attempts, run again to go on"):
        fill(tmp_path, source)
    kept = sum(part.stat().st_size for part in parts(tmp_path))
    assert kept > 3 * MB
    assert not (tmp_path / "store").exists()
    served.proxy.limit = None
    assert_is_layer(fill(tmp_path, source), llama)
    assert not parts(tmp_path)
    needed = module_bytes(llama.layers[LAYER], llama.norm) + header_bytes(folders / "single/model.safetensors")
    assert served.proxy.sent - 4 * MB <= 1.01 * needed - kept  # the second time, only what was missing


def test_an_interrupted_fetch_goes_on(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a layer; the sum of both fetches is what one would have taken."""
    write_params(tmp_path, source=served.folder(folders / "single"), sha256=None)
    served.proxy.rate = 2 * MB
    command = [sys.executable, "-m", "pipelines.fetch_llm", "--params", str(tmp_path / "params.yaml")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as stage:
        wait_until(lambda: served.proxy.sent > 3 * MB)
        stage.send_signal(signal.SIGINT)
        assert "interrupted; the last good outputs are untouched" in stage.communicate(timeout=60)[1]
    served.proxy.rate = None
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert_is_layer(LayerStore(tmp_path / "data/llm"), llama)
    assert served.proxy.sent <= 1.01 * (module_bytes(llama.layers[LAYER]) + UNDER_WAY)
    assert not list((tmp_path / ".cache/parts").iterdir())


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def write_params(folder: Path, **llm: object) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["llm"].update(llm)
    values["model"]["llm"]["layer"] = LAYER
    values["model"]["bottleneck"] = "identity"  # the stage does not read it
    values["search"].update(trials=0, space={})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


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

    def read_what_changes() -> None:
        with open_source(section(source), tmp_path / "cache") as opened:
            served.put(other, "llm/model.safetensors")
            opened.checkpoint.tensors(f"layers.{LAYER}", ())

    with pytest.raises(InputError, match=r"llm/model\.safetensors: changed while it was read; run again"):
        read_what_changes()
    assert not parts(tmp_path)


def test_a_changed_file_is_another_source(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    first = fill(tmp_path, source, (0, 1))
    before = served.proxy.sent
    assert fill(tmp_path, source, (1,)).layers == (0, 1)
    assert served.proxy.sent - before < 0.02 * MB  # the header, and no layer
    changed = save_llm(tmp_path / "changed", tiny_like(llama, seed=1))
    store = fill(tmp_path, served.folder(changed), (1,))
    assert store.layers == (1,)
    assert store.revision != first.revision
    assert store.sha256(1) != first.sha256(1)


def tiny_like(llama: Any, seed: int) -> Any:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "head_dim", "num_key_value_heads", "vocab_size")
    return tiny_llm(seed=seed, **{name: getattr(llama.config, name) for name in names}).bfloat16()


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


def test_wrong_sha256_of_a_layer(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    wrong, right = "0" * 64, fill(tmp_path / "first", source).sha256(LAYER)
    message = rf"llm\.layer_sha256\.2: found {wrong}, but layer 2 of {source} has {right}"
    with pytest.raises(InputError, match=message):
        fill(tmp_path, source, layer_sha256={LAYER: wrong})
    assert not (tmp_path / "store").exists()
    assert not parts(tmp_path)
    assert_is_layer(fill(tmp_path, source, layer_sha256={LAYER: right}), llama)
    with pytest.raises(InputError, match=message):  # also where nothing has to be read
        fill(tmp_path, source, layer_sha256={LAYER: wrong})


def test_sha256_of_a_source_that_is_not_read_whole(served: Served, folders: Path, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    with pytest.raises(InputError, match=r"llm\.sha256: .*cannot be known.*llm\.layer_sha256 checks what is transf"):
        fill(tmp_path, source, sha256="0" * 64)
    assert served.proxy.sent < 0.1 * MB


def test_missing_files(served: Served, folders: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{served.base}/none: has no config\.json; needed: "):
        fill(tmp_path, f"{served.base}/none")
    with pytest.raises(InputError, match=rf"^{served.base}/none\.gguf: no such file$"):
        fill(tmp_path, f"{served.base}/none.gguf")
    served.put(folders / "single/config.json", "llm/config.json")
    with pytest.raises(InputError, match=rf"^{served.base}/llm: has no model\.safetensors; needed: "):
        fill(tmp_path, f"{served.base}/llm")


def test_not_allowed(served: Served, tmp_path: Path) -> None:
    served.proxy.refusals = [403]
    with pytest.raises(InputError, match=r"llm/config\.json: the server answered 403, not allowed; .+"):
        fill(tmp_path, f"{served.base}/llm")


@pytest.mark.parametrize("name", ["single", "gguf"])
@pytest.mark.parametrize("status", [401, 403])
def test_servers_that_say_not_allowed_of_what_is_absent(
    web: WebServer, folders: Path, tmp_path: Path, name: str, status: int
) -> None:
    """As S3 does to those who may not list, and CloudFront: an index, a README and a licence may be absent."""
    shutil.copytree(folders / name, web.folder / "llm")
    (web.folder / "llm" / "LICENSE.txt").unlink(missing_ok=True)
    web.absent = status
    source = f"http://127.0.0.1:{web.port}/llm" + ("/tiny.gguf" if name == "gguf" else "")
    store = fill(tmp_path, source)
    assert (store.load(LAYER).keys(), store.source) == (fill(tmp_path, source).load(LAYER).keys(), source)
    for path in (web.folder / "llm").glob("[mt]*"):
        path.unlink()
    with pytest.raises(
        InputError, match=rf"(model\.safetensors|tiny\.gguf): the server answered {status}, not allowed"
    ):
        fill(tmp_path, source)


@pytest.mark.usefixtures("no_patience")
def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for source in ("http://127.0.0.1:9/llm", "s3://bucket/llm"):
        with pytest.raises(InputError, match=rf"^{source}/config\.json: .*connect.*; gave up after 2") as caught:
            fill(tmp_path, source)
        assert "secret" not in str(caught.value)


def test_no_credentials_and_no_bucket(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    with pytest.raises(InputError, match=r"^s3://none/llm/config\.json: there is no bucket none$"):
        fill(tmp_path, "s3://none/llm")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"config\.json: .*credentials.*; credentials come from the environment"):
        fill(tmp_path, f"s3://{BUCKET}/llm")


@pytest.mark.parametrize(
    "source", ["https://user:secret@host/llm", "https://host/llm.gguf?X-Amz-Signature=secret", "s3://key:secret@b/llm"]
)
def test_credentials_in_an_address_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match=r"^llm\.source: found \w+://.*allowed: neither") as caught:
        fill(tmp_path, source)
    assert "secret" not in str(caught.value)


def test_password_from_netrc(
    web: WebServer, folders: Path, llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folders / "single", web.folder / "llm")
    web.authorization = "Basic dXNlcjpzZWNyZXQ="  # user:secret
    source = f"http://127.0.0.1:{web.port}/llm"
    with pytest.raises(InputError, match=r"the server answered 401, not allowed; .*~/\.netrc"):
        fill(tmp_path, source)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    store = fill(tmp_path, source)
    assert_is_layer(store, llama)
    assert "secret" not in (store.folder / "config.json").read_text()


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
    assert store.licence == "Tiny Community Licence"
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
    assert_is_layer(LayerStore(tmp_path / "data/llm"), llama)
