"""`infra storage` on servers of three kinds, and what DVC then does through it: push here, pull in another clone."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pytest

from llm4seg.config import Config
from tests.import_graph import ROOT
from tests.project import Project
from tests.servers import KEYS, S3, free_port, wait_for
from tests.tiny import PARAMS

# servers by other hands than moto's: nanio checks signatures and takes no settings of buckets, localbucket refuses
# settings by name and lets everyone in
OTHER_SERVERS = ("nanio==0.1.7", "localbucket==1.2.1")
MARKED = {"AWS_ACCESS_KEY_ID": "AKIAMARKEDIDENTITY", "AWS_SECRET_ACCESS_KEY": "markedsecretkey/of+somebody"}
MARKED |= {"AWS_SESSION_TOKEN": "markedsessiontoken"}
PROFILE = {"aws_access_key_id": "AKIAPROFILEDIDENTITY", "aws_secret_access_key": "profiledsecretkey"}


@dataclass(frozen=True)
class Server:
    """Where it answers, and with which keys."""

    url: str
    keys: dict[str, str]


@pytest.fixture(scope="session")
def packages() -> Path:
    """A folder with the other servers' packages, installed once; they are no dependency of this project."""
    folder = Config.load(PARAMS).paths.cache / "-".join(OTHER_SERVERS)
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(partial), *OTHER_SERVERS]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{' and '.join(OTHER_SERVERS)} cannot be installed: {done.stderr.splitlines()[-1]}")
        partial.rename(folder)
    return folder


@contextlib.contextmanager
def serving(module: str, words: list[str], port: int, **environment: str) -> Iterator[None]:
    command = [sys.executable, "-m", module, *words, "--port", str(port)]
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def signed(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that refuses what is not signed, and knows no settings."""
    port, keys = free_port(), {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "sesame-and-more"}
    environment = {"PYTHONPATH": str(packages), "NANIO_ACCESS_KEY": "somebody", "NANIO_SECRET_KEY": "sesame-and-more"}
    words = ["serve", "--host", "127.0.0.1", "--data-dir", str(tmp_path_factory.mktemp("buckets"))]
    with serving("nanio", words, port, **environment):
        yield Server(f"http://127.0.0.1:{port}", keys)


@pytest.fixture
def unguarded(packages: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that takes every request."""
    port = free_port()
    (tmp_path / "open").mkdir()
    with serving("localbucket", [str(tmp_path / "open")], port, PYTHONPATH=str(packages)):
        yield Server(f"http://127.0.0.1:{port}", KEYS)


@pytest.fixture
def moto(s3: S3) -> Server:
    return Server(s3.url, KEYS)


@pytest.fixture(scope="module")
def first_workspace(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A git repository with DVC in it, and files that DVC keeps; read-only, `workspace` is a copy."""
    project = Project(tmp_path_factory.mktemp("first") / "workspace")
    project.folder.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    project.dvc("init", "--quiet")
    (project.folder / "images").mkdir()
    for number in range(3):
        (project.folder / "images" / f"{number}.bin").write_bytes(os.urandom(10_000))
    project.dvc("add", "--quiet", "images")
    project.commit("images")
    return project


@pytest.fixture
def workspace(first_workspace: Project, tmp_path: Path) -> Project:
    return first_workspace.copied(tmp_path / "workspace")


def infra(project: Project, server: Server, *words: str, **environment: str) -> str:
    """`infra storage s3://lab-data/brain`, as a user runs it in a project."""
    command = [sys.executable, "-m", "infra", "storage", "s3://lab-data/brain", "--endpoint-url", server.url, *words]
    return project.run(*command, **surroundings(project) | server.keys | environment)


def surroundings(project: Project) -> dict[str, str]:
    """This project's code, and no settings of AWS but those of a test."""
    files = {name: str(project.folder / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    return files | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def push_clone_and_pull(project: Project, server: Server) -> None:
    environment = surroundings(project) | server.keys
    assert "pushed" in project.dvc("push", **environment)
    project.commit("the remote")
    clone = Project(project.folder.parent / "clones" / "clone")
    project.git("clone", "--quiet", str(project.folder), str(clone.folder))
    assert "fetched" in clone.dvc("pull", **environment)
    for file in (project.folder / "images").iterdir():
        assert (clone.folder / "images" / file.name).read_bytes() == file.read_bytes()


def keys_below(server: Server, prefix: str) -> list[str]:
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=server.keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.keys["AWS_SECRET_ACCESS_KEY"],
    )
    return [one["Key"] for one in client.list_objects_v2(Bucket="lab-data", Prefix=prefix).get("Contents", [])]


def test_set_up_push_and_pull(workspace: Project, moto: Server) -> None:
    output = infra(workspace, moto)
    for check in ("bucket", "tags", "public access", "versioning", "old runs"):
        assert re.search(rf"{check} +\S.* (created, in|now:) ", output), output
    assert f"s3://lab-data/brain/runs?endpoint_override={moto.url[7:]}&scheme=http&region=us-east-1" in output
    config = (workspace.folder / ".dvc" / "config").read_text()
    assert [line.strip() for line in config.splitlines()] == [
        "[core]",
        "remote = storage",
        "['remote \"storage\"']",
        "url = s3://lab-data/brain/dvc",
        f"endpointurl = {moto.url}",
        "region = us-east-1",
    ]
    push_clone_and_pull(workspace, moto)
    assert len(keys_below(moto, "brain/dvc/files/md5/")) == 4
    assert "all is in order; nothing was changed" in infra(workspace, moto)
    assert workspace.git("status", "--porcelain") == ""


def test_a_server_without_settings(workspace: Project, signed: Server) -> None:
    output = infra(workspace, signed)
    for check in ("tags", "public access", "versioning", "old runs"):
        assert re.search(rf"{check} .*missing there", output), output
    assert re.search("unsigned requests +refused", output)
    push_clone_and_pull(workspace, signed)
    assert len(keys_below(signed, "brain/dvc/files/md5/")) == 4
    with pytest.raises(AssertionError, match="exists and has no tag project=llm4seg; if it is yours, --adopt"):
        infra(workspace, signed)
    assert "all is in order; nothing was changed" in infra(workspace, signed, "--adopt")


def test_a_server_that_lets_everyone_in(workspace: Project, unguarded: Server) -> None:
    with pytest.raises(AssertionError, match=rf"not private: {unguarded.url} answers requests that nobody signed"):
        infra(workspace, unguarded)
    assert "remote" not in (workspace.folder / ".dvc" / "config").read_text()


@pytest.mark.parametrize(
    ("environment", "output"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "forbidden: it is another account's bucket, or these credentials are not"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials; credentials come from"),
        ({"AWS_PROFILE": "nobody's"}, "The config profile (nobody's) could not be found; credentials come from"),
    ],
)
def test_bad_credentials_are_one_line(
    workspace: Project, signed: Server, environment: dict[str, str], output: str
) -> None:
    alone = {"AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.raises(AssertionError) as caught:
        infra(workspace, signed, **alone | environment)
    *_, line = str(caught.value).splitlines()
    assert line.startswith("infra storage: s3://lab-data: ")
    assert output in line


def test_the_remote_that_was_there_is_changed_and_named(workspace: Project, moto: Server) -> None:
    workspace.dvc("remote", "add", "--default", "elsewhere", "s3://other/dvc")
    workspace.dvc("remote", "add", "storage", "s3://older/dvc")
    workspace.dvc("remote", "modify", "storage", "profile", "lab")
    assert "s3://older/dvc" in infra(workspace, moto)
    listed = workspace.dvc("config", "--list", "--project")
    assert "core.remote=storage" in listed
    assert "remote.storage.url=s3://lab-data/brain/dvc" in listed
    assert "remote.storage.profile=lab" in listed
    assert "remote.elsewhere.url=s3://other/dvc" in listed


def test_credentials_in_the_remote_are_refused(workspace: Project, moto: Server) -> None:
    workspace.dvc("remote", "add", "storage", "s3://lab-data/brain/dvc")
    workspace.dvc("remote", "modify", "storage", "secret_access_key", "hidden")
    with pytest.raises(AssertionError, match=r"\.dvc/config: remote\.storage\.secret_access_key: found") as caught:
        infra(workspace, moto)
    assert "hidden" not in str(caught.value)


class Onlooker:
    """Remembers the command lines of all processes that this one starts, as `ps` shows them to everyone."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.is_set():
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    self.seen.add(" ".join(process.cmdline()))
            time.sleep(0.02)

    def __enter__(self) -> "Onlooker":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_no_credential_is_written_or_shown(workspace: Project, moto: Server, tmp_path: Path, where: str) -> None:
    """Neither in a file, nor in what is printed, nor on a command line; by `storage`, a push and a stage."""
    secret = MARKED if where == "environment" else PROFILE
    environment = surroundings(workspace) | MARKED
    if where == "profile":
        (tmp_path / "credentials").write_text("\n".join(["[lab]", *(f"{key}={PROFILE[key]}" for key in PROFILE)]))
        named = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "lab"}
        environment = surroundings(workspace) | named | dict.fromkeys(MARKED, "")
    values = PARAMS.read_text().replace("dataset: brain-mri", "dataset: phantom")
    (workspace.folder / "params.yaml").write_text(values)
    url = "s3://lab-data/brain"
    with Onlooker() as onlooker:
        output = workspace.run(
            *(sys.executable, "-m", "infra", "storage", url, "--endpoint-url", moto.url), **environment
        )
        output += workspace.dvc("push", "--verbose", **environment)
        output += workspace.run(sys.executable, "-m", "pipelines.prepare", **environment)
    config = (workspace.folder / ".dvc" / "config").read_text()
    assert "profile" not in config  # other machines, which get this file, do not have it
    assert any("dvc remote" in line for line in onlooker.seen)
    assert any("pipelines.prepare" in line for line in onlooker.seen)
    shown = output + "\n".join(onlooker.seen)
    assert not [value for value in secret.values() if value in shown]
    files = [file for folder in (workspace.folder, tmp_path / "site cache") for file in folder.rglob("*")]
    assert {"config", "manifest.json"} <= {file.name for file in files}
    for file in files:
        if file.is_file():
            assert not [value for value in secret.values() if value.encode() in file.read_bytes()], file
