"""Save what a job has so far: outputs to the DVC remote, and the rest beside it. Runs on the head node.

DVC runs the command of every stage through $SHELL, for which a job sets a script that calls this file first. So a stage
begins once all that was finished before it is in the remote, where its nodes fetch it, and a head node that dies
takes no finished stage along. DVC does not hold its lock then.
"""

import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.jobs.dvc_repo import open_repo, uncached
from infra.jobs.errors import remote_errors, retrying
from infra.jobs.git import git, git_lines
from infra.jobs.job_spec import JobSpec
from infra.jobs.results import BUNDLE, LOG, RESULT, RUNNING, JobResults
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import sha256_file

LOCK = "dvc.lock"
RESULT_REF, EXPERIMENTS = "refs/infra/result", "refs/exps"
INTERNAL = ("exec", "stash", "celery")  # of DVC's refs below refs/exps, those that are no experiments
LOG_BYTES = 5_000_000
SHELL = """#!/bin/sh
# DVC runs each stage's command through this
(cd {checkout} && exec {python} -m infra.jobs.save {folder}); SHELL=/bin/sh exec /bin/sh "$@"
"""


class Job:
    """A job's folder on the head node: its specification, its log, and the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkout, self.spec = folder, folder / "checkout", JobSpec.read(folder)
        self.log, self._saved = folder / LOG, folder / "saved"

    def shell(self) -> Path:
        """The script that DVC is to run stages through."""
        path = self.folder / "sh"
        words = {"checkout": self.checkout, "python": sys.executable, "folder": self.folder}
        path.write_text(SHELL.format(**{name: shlex.quote(str(word)) for name, word in words.items()}))
        path.chmod(0o755)
        return path

    def restore(self) -> None:
        """Go on after a machine that was taken away: what this job had saved there comes into the checkout."""
        with open_repo(self.checkout) as repository:
            results = JobResults(repository.cloud.get_remote())
        if BUNDLE not in results.files(self.spec.job):
            return
        bundle = self.folder / BUNDLE
        bundle.write_bytes(results.read(self.spec.job, BUNDLE))
        git(self.checkout, "fetch", "--quiet", os.fspath(bundle), f"+{RESULT_REF}:{RESULT_REF}")
        git(self.checkout, "restore", f"--source={RESULT_REF}", "--", ":/")

    def save(self, state: str, exit_code: int | None = None) -> None:
        """Push outputs, then the rest; of a running job only if a stage has finished since it was last called."""
        lock = sha256_file(self.checkout / LOCK) if (self.checkout / LOCK).exists() else "none"
        if state == RUNNING and self._saved.exists() and self._saved.read_text() == lock:
            return
        with open_repo(self.checkout) as repository:
            experiments = self._experiments()
            if self._saved.exists():  # not before anything ran
                repository.push(revs=[git(self.checkout, "rev-parse", ref) for ref in experiments] or None)
            results = JobResults(repository.cloud.get_remote())
            results.write(self.spec.job, BUNDLE, self._bundle(repository, experiments))
        if self.log.exists():
            results.write(self.spec.job, LOG, self._last_of_log())
        results.write(self.spec.job, RESULT, json.dumps(self._result(state, exit_code), indent=2).encode())
        self._saved.write_text(lock)

    def _experiments(self) -> list[str]:
        refs = git_lines(self.checkout, "for-each-ref", "--format=%(refname)", EXPERIMENTS)
        return [ref for ref in refs if ref.split("/")[2] not in INTERNAL]

    def _bundle(self, repository: Any, experiments: list[str]) -> bytes:
        """The experiments, and a commit on top of what was sent, with every tracked file that changed."""
        with tempfile.TemporaryDirectory() as temporary:
            content = self._content(f"{temporary}/index", repository)
            message = f"What job {self.spec.job} left"
            commit = git(
                self.checkout, "commit-tree", content, "-p", self.spec.head, "-m", message, **self.spec.identity
            )
            git(self.checkout, "update-ref", RESULT_REF, commit)
            bundle, sent = Path(temporary) / BUNDLE, f"^{self.spec.head}"
            git(self.checkout, "bundle", "create", "--quiet", os.fspath(bundle), RESULT_REF, *experiments, sent)
            return bundle.read_bytes()

    def _content(self, index: str, repository: Any) -> str:
        """A git tree of what was sent and what a run changed of it, or finished stages left to git."""
        git(self.checkout, "read-tree", self.spec.head, GIT_INDEX_FILE=index)
        git(self.checkout, "add", "--update", ":/", GIT_INDEX_FILE=index)
        if unfinished := uncached(repository, finished=False):
            git(self.checkout, "reset", "--quiet", self.spec.head, "--", *unfinished, GIT_INDEX_FILE=index)
        lock = [LOCK] if (self.checkout / LOCK).exists() else []
        if new := [*lock, *uncached(repository, finished=True)]:
            git(self.checkout, "add", "--", *new, GIT_INDEX_FILE=index)
        return git(self.checkout, "write-tree", GIT_INDEX_FILE=index)

    def _last_of_log(self) -> bytes:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_BYTES))
            return file.read()

    def _result(self, state: str, exit_code: int | None) -> dict[str, Any]:
        spec = self.spec
        about = {"job": spec.job, "state": state, "exit_code": exit_code, "command": spec.command}
        at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        return about | {"head": spec.head, "user": spec.author["NAME"], "at": at}


def main() -> None:
    """Save before a stage begins. Where that fails, the stage runs all the same: its end will try again."""
    job = Job(Path(sys.argv[1]))
    expected: tuple[type[Exception], ...] = (InputError, *remote_errors())
    try:
        retrying(job.save)(RUNNING)
    except expected as error:
        print(f"{job.spec.job}: what is finished is not in the DVC remote yet: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
