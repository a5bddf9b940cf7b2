"""What cannot be fetched, or is not what was asked for, is refused in one line and leaves nothing behind."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from llm4seg.utils.errors import InputError, UserError
from tests.integration.llm_sources.served import LAYER, MB, Served, assert_is_layer, fill
from tests.servers import BUCKET, S3, WebServer


def test_wrong_sha256_of_a_layer(served: Served, folders: Path, llama: Any, tmp_path: Path) -> None:
    source = served.folder(folders / "single")
    wrong, right = "0" * 64, fill(tmp_path / "first", source).sha256(LAYER)
    message = rf"llm\.layer_sha256\.2: found {wrong}, but layer 2 of {source} has {right}"
    with pytest.raises(InputError, match=message):
        fill(tmp_path, source, layer_sha256={LAYER: wrong})
    assert not (tmp_path / "store").exists()
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
    """As S3 does to those who may not list, and CloudFront: an index, a README and a license may be absent."""
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


@pytest.mark.usefixtures("two_attempts")
def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for source in ("http://127.0.0.1:9/llm", "s3://bucket/llm"):
        with pytest.raises(UserError, match=rf"^{source}/config\.json: .*connect.*; gave up after 2"):
            fill(tmp_path, source)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:9")
    with pytest.raises(UserError, match=r"^s3://bucket/llm/config\.json: ") as caught:
        fill(tmp_path, "s3://bucket/llm")
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
