"""The bucket as this checkout's DVC remote, set by DVC's own commands; .dvc/config gets no credentials."""

import subprocess
import sys
from collections.abc import Mapping

from infra.shell import call
from infra.storage.settings import Row
from llm4seg.utils.errors import InputError

NAME = "storage"
SECRETS = ("access_key_id", "secret_access_key", "session_token", "password")
DVC = (sys.executable, "-m", "dvc")


def set_remote(url: str, options: Mapping[str, str | None], dry_run: bool) -> Row:
    """Make `url` the default remote, with these options; one that is None is unset, and others stay."""
    found = _settings()
    before = found.get(f"remote.{NAME}.url")
    commands: list[tuple[str, ...]] = []
    if before is None or found.get("core.remote") != NAME:
        commands.append(("add", "--default", NAME, url) if before is None else ("default", NAME))
    for option, wanted in {"url": url, **options}.items():
        now = found.get(f"remote.{NAME}.{option}", url if option == "url" else None)
        if wanted != now:
            commands.append(("modify", "--unset", NAME, option) if wanted is None else ("modify", NAME, option, wanted))
    for command in commands:
        call([*DVC, "remote", *command, "--project"], dry_run)
    if not commands:
        return Row("DVC remote", f"{NAME}, {url}")
    return Row("DVC remote", before or "none", f"{'would be' if dry_run else 'now'}: {NAME}, {url}")


def _settings() -> dict[str, str]:
    """What .dvc/config says. Raises InputError outside a DVC workspace, and if it holds a remote's credentials."""
    done = subprocess.run([*DVC, "config", "--project", "--list"], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.strip()] or ["dvc failed"]
        raise InputError(f"the DVC remote cannot be set here: {errors[0].removeprefix('ERROR: ')}")
    settings = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    for name in settings:
        if name.startswith(f"remote.{NAME}.") and name.rpartition(".")[2] in SECRETS:
            raise InputError(
                f".dvc/config: {name}: found credentials in a file that git keeps; make them invalid, and "
                f"run `dvc remote modify --unset {NAME} {name.rpartition('.')[2]}`"
            )
    return settings
