"""An LLM, and the places from which it is served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import tenacity
from gguf import GGMLQuantizationType as Kind

from llm4seg.llm_sources import retry
from tests.integration.llm_sources.served import Served, copy
from tests.servers import BUCKET, S3, CountingProxy, WebServer
from tests.tiny_llm import save_llm, tiny_llm, write_gguf


@pytest.fixture(scope="package")
def llama() -> Any:
    """Four layers of 6 MB each, in bf16: large enough for one per cent to mean something."""
    shape = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "head_dim": 64}
    return tiny_llm(**shape, num_key_value_heads=4, vocab_size=2048).bfloat16()


@pytest.fixture(scope="package")
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
        base, put = f"http://127.0.0.1:{proxy.port}", lambda file, path: copy(file, server.folder / path)
    else:
        s3: S3 = request.getfixturevalue("s3")
        proxy = CountingProxy(s3.port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        client = boto3.client("s3", endpoint_url=s3.url)
        base, put = f"s3://{BUCKET}", lambda file, path: client.upload_file(str(file), BUCKET, path)
    yield Served(base, proxy, put)
    proxy.close()


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(retry, "WAIT", tenacity.wait_none())


@pytest.fixture
def two_attempts(no_waits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
