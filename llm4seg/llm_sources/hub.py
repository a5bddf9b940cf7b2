"""Models on the Hugging Face hub: the commit that an address resolves to."""

from huggingface_hub import HfApi
from huggingface_hub.errors import HfUriError
from huggingface_hub.utils import parse_hf_uri

from llm4seg.llm_sources.remote import REMEDIES
from llm4seg.llm_sources.retry import retrying
from llm4seg.utils.errors import InputError


def resolve(source: str) -> tuple[str, str, str]:
    """A model's `hf://ORG/NAME`, its commit, and the path in it. A branch or tag is looked up once, here.

    Raises InputError where it is no address of a model, or repository or revision do not exist.
    """
    try:
        uri = parse_hf_uri(source)
    except HfUriError as error:
        raise InputError(f"llm.source: {error}") from None
    if uri.type != "model":
        raise InputError(f"llm.source: found {source!r}, a {uri.type} on the hub, allowed: a model")
    wanted = f"hf://{uri.id}@{uri.revision}" if uri.revision else f"hf://{uri.id}"
    try:
        about = retrying(wanted, REMEDIES["hf"], lambda: HfApi().model_info(uri.id, revision=uri.revision))
    except FileNotFoundError:
        raise InputError(f"{wanted}: no such repository or revision; {REMEDIES['hf']}") from None
    return f"hf://{uri.id}", str(about.sha), uri.path_in_repo
