"""Results of jobs for `fetch`: a folder each, beside the DVC remote and reached through DVC's file system."""

import json
from pathlib import Path
from typing import Any

from infra.jobs.dvc_repo import open_repo
from infra.jobs.errors import translate_dvc_errors, translate_remote_errors
from llm4seg.utils.errors import InputError

RESULT, BUNDLE, LOG = "result.json", "result.bundle", "log.txt"
RUNNING = "running"


class JobResults:
    """The folder `jobs` beside the DVC remote's. Reading raises InputError where the bucket refuses."""

    def __init__(self, remote: Any) -> None:
        self._files = remote.fs.fs
        self._path = f"{remote.path.rstrip('/').rpartition('/')[0]}/jobs"

    @classmethod
    def open(cls, folder: Path) -> "JobResults":
        """That of a checkout."""
        with translate_dvc_errors(), open_repo(folder) as repository:
            return cls(repository.cloud.get_remote())

    def write(self, job: str, name: str, content: bytes) -> None:
        """A file appears whole or not at all, and replaces the one before."""
        self._files.pipe_file(f"{self._path}/{job}/{name}", content)

    def read(self, job: str, name: str) -> bytes:
        """Raises InputError for a file that is not there."""
        with translate_remote_errors(self._path):
            try:
                content: bytes = self._files.cat_file(f"{self._path}/{job}/{name}")
            except FileNotFoundError:
                advice = "`python -m infra fetch` lists the jobs there are"
                raise InputError(f"{job}: {self._path} has no {name} of it; {advice}") from None
        return content

    def result(self, job: str) -> dict[str, Any]:
        """A job's record: state, exit code, command, commits, user, time."""
        found: dict[str, Any] = json.loads(self.read(job, RESULT))
        return found

    def has_ended(self, job: str) -> bool:
        """Whether a job has written its final record; one that was killed has not."""
        return RESULT in self.files(job) and self.result(job)["state"] != RUNNING

    def files(self, job: str = "") -> list[str]:
        """The files of a job, or the names of all jobs, the newest last."""
        with translate_remote_errors(self._path):
            try:
                found = self._files.ls(f"{self._path}/{job}".rstrip("/"), detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return sorted((path.rstrip("/").rpartition("/")[2] for path in found), key=lambda name: name.split("-")[-3:])
