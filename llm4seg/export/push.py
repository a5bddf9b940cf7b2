"""`push`: a trained model's folder to the hub or to a bucket, with its model card."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfUriError
from huggingface_hub.utils import parse_hf_uri

from llm4seg.export.model_card import model_card
from llm4seg.llm_sources.remote import REMEDIES, file_system
from llm4seg.llm_sources.retry import retrying
from llm4seg.models.saved import DESCRIPTION, WEIGHTS, read_metadata, read_weights
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json

CARD, METRICS = "README.md", "metrics.json"
BUCKETS = ("s3", "gs", "az")
ALLOWED = "hf://ORG/NAME, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER"


def push(folder: Path, address: str, metrics: Path | None, license: str | None, public: bool) -> str:
    """Upload a trained model, and return the address by which `llm4seg.load` reads this version of it.

    model.json is uploaded without paths of this machine. A repository on the hub is created where there is none,
    private unless `public`. Raises InputError for another address, a folder that is no model, and what the place says.
    """
    description, _ = read_metadata(folder)
    read_weights(folder)  # whole, before anything is sent
    scores = None if metrics is None else read_json(metrics)
    scheme = address.partition("://")[0]
    files: dict[str, bytes | Path] = {
        WEIGHTS: folder / WEIGHTS,
        DESCRIPTION: _json(_without_paths(read_json(folder / DESCRIPTION))),
        CARD: model_card(description, scores, address, license).encode(),
    }
    if scores is not None:
        files[METRICS] = _json(scores)
    if scheme == "hf":
        return _push_to_hub(files, address, public)
    if scheme in BUCKETS:
        return _push_to_bucket(files, address.rstrip("/"), scheme)
    raise InputError(f"push: found {address}, allowed: {ALLOWED}")


def _without_paths(description: dict[str, Any]) -> dict[str, Any]:
    """model.json without the path of an LLM on this machine, which names folders of its user."""
    llm = description["llm"]
    if llm and "://" not in (llm.get("address") or "://"):
        return description | {"llm": llm | {"address": None}}
    return description


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _push_to_hub(files: dict[str, bytes | Path], address: str, public: bool) -> str:
    try:
        uri = parse_hf_uri(address)
    except HfUriError as error:
        raise InputError(f"push: {error}") from None
    if uri.type != "model" or uri.path_in_repo or uri.revision:
        raise InputError(f"push: found {address}, allowed: {ALLOWED}")
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]

    def commit() -> str:
        HfApi().create_repo(uri.id, private=not public, exist_ok=True)
        return HfApi().create_commit(uri.id, operations, commit_message="A model trained with llm4seg").oid

    remedy = "log in with a token that may write there: `hf auth login`, or set HF_TOKEN"
    return f"hf://{uri.id}@{_sent(address, remedy, commit)}"


def _push_to_bucket(files: dict[str, bytes | Path], address: str, scheme: str) -> str:
    places = file_system(scheme)
    for name, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        _sent(f"{address}/{name}", REMEDIES[scheme], partial(places.pipe_file, f"{address}/{name}", data))
    return address


def _sent(place: str, remedy: str, action: Callable[[], Any]) -> Any:
    try:
        return retrying(place, remedy, action)
    except FileNotFoundError:
        raise InputError(f"{place}: the server knows no such place; {remedy}") from None
