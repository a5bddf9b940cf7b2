"""A checkout as DVC's `Repo`: its remote, the dependencies and outputs of its stages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from infra.jobs.errors import translate_dvc_errors
from infra.storage.s3_location import S3Location
from llm4seg.cluster.data_sync import REMOTE_SETTINGS
from llm4seg.utils.errors import InputError


@contextmanager
def open_repo(folder: Path) -> Iterator[Any]:
    """A checkout as DVC's `Repo`. Raises InputError where there is none, or none with a remote on the network."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repository = Repo(str(folder))
    except NotDvcRepoError:
        raise InputError(f"{folder}: no DVC workspace; run this in the project's folder") from None
    with repository:
        remote(repository)
        yield repository


def remote(repository: Any) -> dict[str, Any]:
    """Settings of the default remote that say where it is, without credentials."""
    name = repository.config["core"].get("remote")
    advice = "run `python -m infra storage s3://BUCKET/PREFIX`"
    if not name:
        raise InputError(f"DVC has no default remote, through which data go to the cluster and back: {advice}")
    settings = repository.config["remote"].get(name, {})
    if "://" not in settings.get("url", ""):
        raise InputError(f"DVC's default remote {name}: found {settings.get('url')}, which no cluster sees: {advice}")
    return {key: value for key, value in settings.items() if key in REMOTE_SETTINGS}


def read_in_part(repository: Any) -> list[str]:
    """Outputs in dvc.lock of which a stage reads one part, or that are a part of what a stage reads.

    `dvc repro --pull` fetches what a stage reads if there is nothing of it. Of such outputs it would fetch a part, then
    find the rest deleted.
    """
    outs = {path for out in repository.index.outs if out.hash_info and (path := _path(out))}
    deps = {path for dep in repository.index.deps if (path := _path(dep))}
    return sorted(
        str(out)
        for out in outs
        if any(dep != out and (dep.is_relative_to(out) or out.is_relative_to(dep)) for dep in deps)
    )


def uncached(repository: Any, finished: bool | None = None) -> list[str]:
    """Outputs that are left to git: all, or those that are, or are not, what dvc.lock says."""
    outs = [out for out in repository.index.outs if not out.use_cache and _path(out)]
    return sorted(str(_path(out)) for out in outs if finished is None or finished == is_finished(out))


def is_finished(out: Any) -> bool:
    """Whether an output is what dvc.lock says: a stage that was interrupted may leave others."""
    return bool(out.hash_info and out.exists and not out.changed_checksum())


def read_but_not_sent(repository: Any, names: list[str]) -> list[str]:
    """Of some untracked files, those that a stage reads."""
    outs = [path for out in repository.index.outs if (path := _path(out))]
    deps = [path for dep in repository.index.deps if (path := _path(dep))]
    files = [PurePosixPath(name) for name in names]
    return [
        str(file)
        for file in files
        if any(file.is_relative_to(dep) for dep in deps) and not any(file.is_relative_to(out) for out in outs)
    ]


def _path(one: Any) -> PurePosixPath | None:
    """A dependency's or output's path below the workspace; None for parameters, and for what is elsewhere."""
    if one.protocol != "local" or not getattr(one, "fs_path", None) or type(one).__name__ == "ParamsDependency":
        return None
    path, root = PurePosixPath(one.fs_path), PurePosixPath(one.repo.root_dir)
    return path.relative_to(root) if path.is_relative_to(root) else None


def bucket_and_prefix(folder: Path) -> tuple[str, str]:
    """Of the remote's url, s3://BUCKET/PREFIX/dvc, which clusters may use. Raises InputError."""
    with translate_dvc_errors(), open_repo(folder) as repository:
        url = remote(repository)["url"].rstrip("/")
    advice = "; `python -m infra storage s3://BUCKET/PREFIX` sets it"
    try:
        location = S3Location.parse(url.removesuffix("/dvc"))
    except InputError as error:
        raise InputError(f"the DVC remote: {error}{advice}") from None
    if not url.endswith("/dvc"):
        raise InputError(f"the DVC remote: found {url!r}, allowed: s3://BUCKET/PREFIX/dvc{advice}")
    return location.bucket, location.prefix
