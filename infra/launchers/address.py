"""This laptop's public address, from which alone SSH is allowed."""

import urllib.error
import urllib.request

from infra.launchers.checks import ssh_range
from llm4seg.utils.errors import InputError

MIRROR = "https://checkip.amazonaws.com"


def own_address(timeout: float = 10) -> str:
    """As AWS sees it, in CIDR notation. Raises InputError."""
    try:
        with urllib.request.urlopen(MIRROR, timeout=timeout) as response:
            return ssh_range(response.read(64).decode("ascii").strip())
    except (urllib.error.URLError, TimeoutError, UnicodeDecodeError) as error:
        raise InputError(f"{MIRROR} does not say which address is yours ({error}); --ssh-from ADDRESS does") from None
