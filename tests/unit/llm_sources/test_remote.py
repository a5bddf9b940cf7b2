"""Places that fsspec reads: any of its file systems will do, and errors of all of them end in one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
import pytest
import tenacity
from aiohttp.http_exceptions import ContentLengthError
from botocore.exceptions import ClientError, NoCredentialsError
from fsspec.implementations.memory import MemoryFileSystem
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from llm4seg.llm_sources import remote, retry
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.utils.errors import InputError, UserError
from tests.tiny_llm import save_llm, section, tiny_llm


class MemoryBucket(MemoryFileSystem):
    """Files in memory under the addresses of Google's buckets; `broken`: the next requests that fail."""

    protocol = "gs"
    broken = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if type(self).broken:
            type(self).broken -= 1
            raise ConnectionResetError("reset by peer")
        return bytes(super().cat_file(path, start, end, **kwargs))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBucket]:
    monkeypatch.setattr(fsspec, "filesystem", lambda scheme, **options: MemoryBucket())  # gcsfs is not installed here
    yield MemoryBucket()
    MemoryBucket.store.clear()


def test_any_file_system_of_fsspec(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 1000)
    monkeypatch.setattr(retry, "WAIT", tenacity.wait_none())
    llama = tiny_llm()
    for file in save_llm(tmp_path / "llm", llama).iterdir():
        bucket.pipe_file(f"gs://bucket/llm/{file.name}", file.read_bytes())
    MemoryBucket.broken = 3
    store = fill_store(tmp_path / "store", section("gs://bucket/llm"), [1], tmp_path / "cache")
    assert store.source == "gs://bucket/llm"
    assert all((store.load(1)[name] == tensor).all() for name, tensor in llama.layers[1].state_dict().items())
    assert capsys.readouterr().err.count("reset by peer; trying again in 0.0 s") == 3


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_a_place_whose_package_is_not_installed(scheme: str, package: str, tmp_path: Path) -> None:
    message = rf"^llm\.source: found {scheme}://, which needs the package {package}; run `pip install {package}`$"
    with pytest.raises(InputError, match=message):
        fill_store(tmp_path / "store", section(f"{scheme}://place/llm"), [1], tmp_path / "cache")


def web_error(status: int) -> Exception:
    """As fsspec raises them."""
    address, headers = URL("https://host/f?X-Amz-Signature=secret"), CIMultiDictProxy(CIMultiDict[str]())
    return aiohttp.ClientResponseError(aiohttp.RequestInfo(address, "GET", headers), (), status=status)


def s3_error(status: int, code: str) -> Exception:
    """As s3fs raises them."""
    error = OSError("refused by https://user:secret@host/b?X-Amz-Signature=secret")
    error.__cause__ = ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )
    return error


def half_an_answer() -> Exception:
    """As aiohttp raises it; what caused it has a status that no server sent."""
    error = aiohttp.ClientPayloadError("half")
    error.__cause__ = ContentLengthError("too short")
    assert error.__cause__.code == 400
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (web_error(403), retry.NotAllowedError, "s3://b/f: the server answered 403, not allowed; log in"),
        (s3_error(401, "?"), retry.NotAllowedError, "s3://b/f: the server answered 401, not allowed; log in"),
        (web_error(404), FileNotFoundError, "s3://b/f"),
        (FileNotFoundError("x"), FileNotFoundError, "s3://b/f"),
        (s3_error(404, "NoSuchBucket"), InputError, "s3://b/f: there is no bucket b"),
        (web_error(429), retry.UnavailableError, "the server answered 429"),
        (s3_error(503, "SlowDown"), retry.UnavailableError, "the server answered 503"),
        (web_error(418), InputError, "s3://b/f: the server answered 418"),
        (half_an_answer(), retry.UnavailableError, "half"),
        (TimeoutError(), retry.UnavailableError, "TimeoutError"),
        (NoCredentialsError(), InputError, "s3://b/f: Unable to locate credentials; log in"),
        (OSError("of https://u:secret@h/b?Signature=secret"), InputError, "s3://b/f: of https://h/b; log in"),
        (UserError("as it is"), UserError, "as it is"),
        (TypeError("as it is"), TypeError, "as it is"),
    ],
)
def test_errors_of_all_places(error: Exception, kind: type[Exception], message: str) -> None:
    found = retry.explained(error, "s3://b/f", "log in")
    assert (type(found), str(found)) == (kind, message)
