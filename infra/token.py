"""Ray's token, where Ray itself looks for it on this machine; made there if there is none."""

import os
import secrets
from pathlib import Path

from llm4seg.errors import InputError


def ray_token() -> str:
    """The token of RAY_AUTH_TOKEN, or of its file; a new file is readable by its owner alone."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = token_path()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_hex(32), encoding="utf-8")
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise InputError(f"{path}: found nothing, allowed: Ray's token; delete the file, and a new one is made")
    return token


def token_path() -> Path:
    """RAY_AUTH_TOKEN_PATH, or Ray's default place."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
