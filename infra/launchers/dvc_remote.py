"""Where this checkout keeps its data: the bucket and the prefix of its DVC remote, which clusters may use."""

import re
import subprocess
import sys

from llm4seg.errors import InputError

URL = re.compile(r"(?P<scheme>s3|gs)://(?P<bucket>[^/]+)/(?P<prefix>.+)/dvc/?")


def bucket_and_prefix(scheme: str = "s3") -> tuple[str, str]:
    """Of the remote's url, SCHEME://BUCKET/PREFIX/dvc. Raises InputError."""
    name = _dvc_config("core.remote")
    url = _dvc_config(f"remote.{name}.url") if name else ""
    match = URL.fullmatch(url)
    if match is None or match["scheme"] != scheme:
        how = f"`python -m infra storage {scheme}://BUCKET/PREFIX` sets it"
        raise InputError(f"the DVC remote: found {url or 'none'}, allowed: {scheme}://BUCKET/PREFIX/dvc; {how}")
    return match["bucket"], match["prefix"]


def _dvc_config(option: str) -> str:
    """An option's value, empty where it is not set."""
    done = subprocess.run([sys.executable, "-m", "dvc", "config", option], capture_output=True, text=True)
    return done.stdout.strip()
