"""The token without which a cluster answers nobody: in a file of this laptop, from which Ray copies it to the nodes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm4seg.utils.errors import InputError

MODE, PATH, VALUE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"
ON_NODES = "~/.ray/auth_token"  # where Ray looks for it


def token_file() -> Path:
    """Where the token is, on this machine. Raises InputError if Ray would take another one."""
    if os.environ.get(VALUE):
        raise InputError(f"{VALUE}: found a token in the environment, allowed: none; {PATH} may name a file with it")
    return Path(os.environ.get(PATH) or "~/.ray/auth_token").expanduser().absolute()


def make_token() -> Path:
    """The file with the token, which its owner alone can read; made if it is not there.

    Ray makes one by itself, too, which everybody on this machine can read.
    """
    path = token_file()
    if path.exists():
        path.chmod(0o600)
        return path
    from infra.launchers.ray_internals import generate_new_authentication_token

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(generate_new_authentication_token())
    return path


@contextmanager
def token_in_use() -> Iterator[None]:
    """Ray's clients in this process show the token, as long as the block."""
    from infra.launchers.ray_internals import reload_token

    before = os.environ.get(MODE)
    os.environ[MODE] = "token"
    reload_token()
    try:
        yield
    finally:
        if before is None:
            del os.environ[MODE]
        else:
            os.environ[MODE] = before
        reload_token()
