"""The bucket and prefix of this checkout's DVC remote, which clusters may use."""

from pathlib import Path

from infra.jobs.dvc_repo import open_repo, remote
from infra.jobs.errors import translate_dvc_errors
from infra.storage.s3_location import S3Location
from llm4seg.utils.errors import InputError, UserError


def bucket_and_prefix() -> tuple[str, str]:
    """Of the remote's url, s3://BUCKET/PREFIX/dvc. Raises InputError."""
    with translate_dvc_errors(), open_repo(Path.cwd()) as repository:
        url = remote(repository)["url"].rstrip("/")
    try:
        location = S3Location.parse(url.removesuffix("/dvc"))
    except UserError as error:
        raise _not_ours(str(error)) from None
    if not url.endswith("/dvc"):
        raise _not_ours(f"found {url!r}, allowed: s3://BUCKET/PREFIX/dvc")
    return location.bucket, location.prefix


def _not_ours(why: str) -> InputError:
    return InputError(f"the DVC remote: {why}; `python -m infra storage s3://BUCKET/PREFIX` sets it")
