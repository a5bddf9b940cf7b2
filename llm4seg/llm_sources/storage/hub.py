"""Files of a model on the Hugging Face hub, at one commit. The token is the one that `hf auth login` or HF_TOKEN set.

Which files there are, their sha256 and their addresses come from huggingface_hub's file system. Its own way of reading
knows whole files and blocks held in memory only, so the bytes are read from the addresses, as from any web server.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import httpx2
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers

from llm4seg.llm_sources.storage.http import HTTPTransport
from llm4seg.llm_sources.storage.retry import persistently
from llm4seg.llm_sources.storage.transport import UnavailableError, refusal, without_secrets
from llm4seg.utils.errors import InputError

REMEDY = "if it is private or gated: accept its license on its page, then `hf auth login` or set HF_TOKEN"


def resolve_commit(repo: str, revision: str | None) -> str:
    """The commit that a branch or tag (None: the main branch) means now."""
    wanted = f"hf://{repo}@{revision}" if revision else f"hf://{repo}"

    def ask() -> str:
        with _explained(wanted):
            return str(HfApi().model_info(repo, revision=revision).sha)

    try:
        return persistently(wanted, ask)
    except FileNotFoundError:
        raise InputError(f"{wanted}: no such repository or revision; {REMEDY}") from None


class HubTransport(HTTPTransport):
    """A folder of a model's repository at one commit (see `Transport`)."""

    remedy = REMEDY

    def __init__(self, repo: str, commit: str, folder: str) -> None:
        self._hub = HfFileSystem()
        headers = build_hf_headers()
        token = headers.pop("authorization", None)
        super().__init__(f"hf://{repo}@{commit}/{folder}", headers, [_own_token(self._hub.endpoint, token)])

    def address(self, name: str) -> str:
        """Raises FileNotFoundError when the repository has no such file."""
        with _explained(self.place(name)):
            self._hub.info(self.place(name))
            return str(self._hub.url(self.place(name)))

    def sha256(self, name: str) -> str | None:
        """What the hub states of its large files."""
        with _explained(self.place(name)):
            large = self._hub.info(self.place(name))["lfs"]
            return None if large is None else str(large.sha256)


def _own_token(endpoint: str, token: str | None) -> aiohttp.ClientMiddlewareType:
    """Sends the token to the hub alone, and nothing out of ~/.netrc to anyone.

    aiohttp reads that along with the environment's proxies, and refuses a header of our own beside it.
    """

    async def change(request: aiohttp.ClientRequest, go_on: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers.pop("Authorization", None)
        if token is not None and str(request.url).startswith(f"{endpoint}/"):
            request.headers["Authorization"] = token
        return await go_on(request)

    return change


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Errors of huggingface_hub as those of `Transport.open`."""
    try:
        yield
    except HfHubHTTPError as error:
        raise refusal(error.response.status_code, place, REMEDY) from None
    except (httpx2.TransportError, TimeoutError) as error:
        raise UnavailableError(without_secrets(str(error)) or type(error).__name__) from None
    except ConnectionError as error:  # HF_HUB_OFFLINE
        raise InputError(f"{place}: {without_secrets(str(error))}") from None
