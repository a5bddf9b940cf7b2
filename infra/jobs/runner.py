"""A job on the head node: pull what the command needs, run it, save its results, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from infra.jobs.dvc_repo import open_repo, read_in_part
from infra.jobs.errors import retrying
from infra.jobs.results import RUNNING
from infra.jobs.save import Job

CACHE = Path.home() / ".cache" / "llm4seg" / "dvc"  # of all jobs on this node: what one fetched, the next one has
DVC = [sys.executable, "-m", "dvc"]
PULL_OPTIONS = ("--pull", "--allow-missing")  # what is up to date is fetched only if a stage that runs reads it


class JobRunner:
    """Runs the command of a job, with what comes before and after it."""

    def __init__(self, job: Job) -> None:
        self._job, self._stopped = job, False

    def run(self) -> int:
        """The command's exit code, or that of what failed before it."""
        signal.signal(signal.SIGTERM, self._stop)
        self._configure()
        retrying(self._job.restore)()
        retrying(self._job.save)(RUNNING)
        code = 1
        try:
            code = self._pull() or self._call(with_pull(self._job.spec.command))
        finally:
            retrying(self._job.save)(self._state(code), code)
        return code

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        """Ray sends SIGTERM to all processes of a job: what runs ends by itself, and what it left is saved then."""
        self._stopped = True

    def _state(self, code: int) -> str:
        if self._stopped:
            return "stopped"
        return "failed" if code else "succeeded"

    def _configure(self) -> None:
        """DVC's settings here: where the remote is, and one cache for all jobs of this node."""
        remote = "".join(f"    {name} = {value}\n" for name, value in self._job.spec.remote.items())
        (self._job.checkout / ".dvc" / "config.local").write_text(
            f"[core]\n    remote = job\n[cache]\n    dir = {CACHE}\n['remote \"job\"']\n{remote}"
        )

    def _pull(self) -> int:
        """Fetch what DVC would not fetch whole by itself."""
        with open_repo(self._job.checkout) as repository:
            outs = read_in_part(repository)
        return self._call([*DVC, "pull", *outs]) if outs else 0

    def _call(self, command: list[str]) -> int:
        """Run a command to the end of its last process; what they print is passed on and kept."""
        if self._stopped:
            return 128 + signal.SIGTERM
        environment = os.environ | self._job.spec.environment | {"SHELL": str(self._job.shell())}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        try:
            process = subprocess.Popen(
                command, cwd=self._job.checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:  # as a shell says it
            print(f"{command[0]}: {error.strerror}", flush=True)
            return 127
        assert process.stdout is not None
        with self._job.log.open("ab") as log, process.stdout as output:
            while chunk := output.read1(1 << 16):  # type: ignore[attr-defined]
                for file in (log, sys.stdout.buffer):
                    file.write(chunk)
                    file.flush()
        return process.wait()


def with_pull(command: list[str]) -> list[str]:
    """`dvc repro` or `dvc exp run` with the options that fetch what it needs."""
    missing = [option for option in PULL_OPTIONS if option not in command]
    words = 3 if command[1] == "exp" else 2
    return [*command[:words], *missing, *command[words:]]


def main() -> None:
    job = Job(Path(sys.argv[1]))
    code = JobRunner(job).run()
    if code == 0:
        shutil.rmtree(job.checkout)  # all of it is in the bucket; after a failure, somebody may want to look
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
