"""A node's cache: filled from a DVC remote on S3, once for all workers, verified, and used again."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from llm4seg.cluster.data_sync import DataSync, DvcOutput, FetchFailed, data_sync, dvc_md5
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.llm.store import named_store
from llm4seg.utils.errors import InputError
from tests.project import Project
from tests.servers import BUCKET, ENVIRONMENT, S3


@pytest.fixture(scope="module")
def first_project(workspace: Config, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A DVC workspace with what a training reads; read-only, `project` is a copy."""
    project = Project(tmp_path_factory.mktemp("first") / "project")
    project.folder.mkdir()
    for name in ("prepared", "llm_used"):
        shutil.copytree(getattr(workspace.paths, name), project.folder / name)
    shutil.copytree(workspace.paths.llm_used, project.folder / "llm_used" / "qwen")  # the store of another LLM
    shutil.copy(workspace.paths.split, project.folder / "split")
    project.dvc("init", "--no-scm", "--quiet")
    project.dvc("add", "--quiet", "prepared", "llm_used", "split")
    return project


@pytest.fixture
def project(first_project: Project, tmp_path: Path) -> Project:
    return first_project.copied(tmp_path / "project")


@pytest.fixture(scope="module")
def pushed_project(first_project: Project, one_s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with a remote that has its outputs; tests of this module leave the bucket as it is."""
    project = first_project.copied(tmp_path_factory.mktemp("pushed") / "project")
    project.dvc("remote", "add", "--default", "store", f"s3://{BUCKET}/dvc")
    project.dvc("remote", "modify", "store", "endpointurl", one_s3.url)
    for name in ("access_key_id", "secret_access_key"):
        project.dvc("remote", "modify", "--local", "store", name, "sesame")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        one_s3.empty()
        project.dvc("push", "--quiet")
    return project


@pytest.fixture
def s3(one_s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server with an empty log."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    os.truncate(one_s3.log, 0)
    return one_s3


@pytest.fixture
def pulling(pushed_project: Project, config: Config, tmp_path: Path, s3: S3) -> Config:
    """The config of a run that pulls, of a copy of the project."""
    return pull(config, pushed_project.copied(tmp_path / "pulling"), tmp_path / "node")


def pull(config: Config, project: Project, cache: Path) -> Config:
    paths = {f"paths.{name}": str(project.folder / name) for name in ("prepared", "llm_used", "split")}
    return config.override(
        paths | {"cluster.data": "pull", "cluster.storage": "s3://x/y", "cluster.node_cache": str(cache)}
    )


def described(config: Config) -> DataSync:
    data = data_sync(config)
    assert data is not None
    return data


def test_many_workers_fetch_once_and_the_next_run_nothing(pulling: Config, s3: S3) -> None:
    data = described(pulling)
    assert "sesame" not in str(data)  # no credential goes along
    assert data.remote["endpointurl"] == s3.url
    shutil.rmtree(pulling.paths.split.parent)
    with ThreadPoolExecutor() as workers:
        here, *others = workers.map(data.on_this_node, [pulling] * 3)
    assert others == [here] * 2
    cache = pulling.cluster.node_cache
    assert all(path.is_relative_to(cache) for path in (here.paths.prepared, here.paths.split, here.paths.llm_used))
    for case in Prepared(here.paths.prepared).cases:
        Prepared(here.paths.prepared).resampled(case)
    for name in ("default", "qwen"):
        named_store(here.paths.llm_used, name).load(1)
    got = s3.got("dvc/files/md5")
    assert len(got) == len(set(got)) > 3
    data.on_this_node(pulling)
    assert s3.got("dvc/files/md5") == got
    assert {path.name for path in cache.iterdir()} == {"lock", "state", *(part.md5 for part in data.parts.values())}


def test_a_changed_byte_is_noticed(pulling: Config, s3: S3, capfd: pytest.CaptureFixture[str]) -> None:
    data = described(pulling)
    layer = next(data.on_this_node(pulling).paths.llm_used.glob("layer*"))
    sound, got = layer.read_bytes(), s3.got("dvc/files/md5")
    layer.chmod(0o644)
    layer.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    data.on_this_node(pulling)
    assert layer.read_bytes() == sound
    assert f"{layer.parent} was changed; fetching it again" in capfd.readouterr().err
    again = s3.got("dvc/files/md5")[len(got) :]
    assert 0 < len(again) < len(got)  # the damaged part alone


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "one").write_text("1")
    part = DvcOutput(dvc_md5(files), 1)
    files.rename(part.path(tmp_path))
    read: list[Path] = []
    monkeypatch.setattr("llm4seg.cluster.data_sync.dvc_md5", lambda path: read.append(path) or part.md5)
    assert part.is_intact(tmp_path)
    assert part.is_intact(tmp_path)
    assert len(read) == 1
    os.utime(part.path(tmp_path) / "one", (1, 1))
    assert part.is_intact(tmp_path)
    (part.path(tmp_path) / "two").touch()
    assert part.is_intact(tmp_path)
    assert len(read) == 3


def test_the_hash_is_the_one_that_dvc_writes(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    for name in ("a/b", "a-b", "a/ä", "b.json"):
        file = project.folder / "files" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    shutil.copy(file, project.folder / "file")
    project.dvc("init", "--no-scm", "--quiet")
    project.dvc("add", "--quiet", "files", "file")
    for name in ("files", "file"):
        (out,) = yaml.safe_load((project.folder / f"{name}.dvc").read_text())["outs"]
        assert dvc_md5(project.folder / name) == out["md5"]


def test_a_remote_that_gives_something_else_is_noticed(pulling: Config, s3: S3) -> None:
    import boto3

    data = described(pulling)
    md5 = data.parts["split"].md5
    key = f"dvc/files/md5/{md5[:2]}/{md5[2:]}"
    client = boto3.client("s3", endpoint_url=s3.url)
    client.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    with pytest.raises(FetchFailed, match=r"node \S+: `dvc pull` from s3://llm4seg/dvc: ERROR"):
        data.on_this_node(pulling)
    client.upload_file(str(pulling.paths.split), BUCKET, key)
    assert not (pulling.cluster.node_cache / md5).exists()


def test_too_small_a_disk_is_one_line(pulling: Config, s3: S3) -> None:
    data = described(pulling)
    vast = {name: replace(part, size=10**18) for name, part in data.parts.items()}
    with pytest.raises(InputError, match=r"GB are free in \S+ and the run's data needs 3000000000.0 GB: make room"):
        replace(data, parts=vast).on_this_node(pulling)
    assert not s3.got("dvc/files/md5")


def test_what_is_not_pushed_or_changed_is_named(project: Project, config: Config, tmp_path: Path) -> None:
    pulling = pull(config, project, tmp_path / "node")
    with pytest.raises(InputError, match="DVC has no default remote: run `dvc remote add -d`"):
        data_sync(pulling)
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.dvc("push", "--quiet", "prepared")
    with pytest.raises(InputError, match=r"lacks paths.split \(split\), paths.llm_used \(llm_used\): run `dvc push`"):
        data_sync(pulling)
    (project.folder / "split").chmod(0o644)
    (project.folder / "split").write_text("{}")
    with pytest.raises(InputError, match=r"split: not what dvc.lock says.*run `dvc repro`"):
        data_sync(pulling)


def test_without_dvc_nodes_can_only_share(config: Config, project: Project, tmp_path: Path) -> None:
    assert data_sync(config) is None
    pulling = pull(config, project, tmp_path / "node")
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.dvc("remove", "split.dvc")
    with pytest.raises(InputError, match=r"split is no output in dvc.yaml; allowed: shared"):
        data_sync(pulling)
    with pytest.raises(InputError, match=r"is in no DVC workspace.*allowed: shared"):
        data_sync(pulling.override({"paths.prepared": str(config.paths.prepared)}))
