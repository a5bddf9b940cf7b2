"""Where this checkout keeps its data: the bucket and the prefix of its DVC remote, which clusters may use."""

from pathlib import Path

from infra.jobs.dvc_repo import remote, workspace
from infra.jobs.errors import explained_by_dvc
from infra.storage.s3_location import Place
from llm4seg.utils.errors import InputError, UserError


def bucket_and_prefix() -> tuple[str, str]:
    """Of the remote's url, s3://BUCKET/PREFIX/dvc. Raises InputError."""
    with explained_by_dvc(), workspace(Path.cwd()) as repository:
        url = remote(repository)["url"].rstrip("/")
    try:
        place = Place.parse(url.removesuffix("/dvc"))
    except UserError as error:
        raise _not_ours(str(error)) from None
    if not url.endswith("/dvc"):
        raise _not_ours(f"found {url!r}, allowed: s3://BUCKET/PREFIX/dvc")
    return place.bucket, place.prefix


def _not_ours(why: str) -> InputError:
    return InputError(f"the DVC remote: {why}; `python -m infra storage s3://BUCKET/PREFIX` sets it")
