"""A job by SkyPilot: what it needs goes into the folder that infra/sky/task.yaml sends, and `sky` rents machines."""

import secrets
import shlex
import shutil
from pathlib import Path

from infra.shell import call
from llm4seg.utils.errors import InputError

FOLDER = Path(".infra") / "job"  # `workdir` of infra/sky/task.yaml; git does not see it
HOW = "jobs launch"  # on a machine of the job's own, which is rented anew where a spot one is taken away


def launch(task: str, job: str, sent: Path, how: str, dry_run: bool) -> None:
    """Call `sky HOW` with a task's file. `sent`: the folder with the job's specification, bundle and entrypoint.

    Beside these, nodes get the environment to install and the token of their Ray. Raises InputError if `sky` fails.
    """
    words = _split(how)
    if not dry_run:
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(sent, FOLDER)
        shutil.copy("requirements.lock", FOLDER)
        (FOLDER / ".skyignore").touch()  # else SkyPilot asks git what to leave out, which ignores all of the folder
        token = FOLDER / "ray_token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    call(["sky", *words, "--name", job, task], dry_run)


def _split(how: str) -> list[str]:
    try:
        return shlex.split(how)
    except ValueError as error:
        raise InputError(f"--sky: found {how}, allowed: words as in a shell: {error}") from None
