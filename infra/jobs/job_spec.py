"""A job's specification: the command, the commit, where it runs, who sent it; no credentials."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm4seg.config.config import JOB_SETTINGS

EXPERIMENT = ["dvc", "exp", "run"]  # what comes home as an experiment, and changes no file here
COMMANDS = (["dvc", "repro"], EXPERIMENT)  # with which all jobs begin: DVC knows what they need and what they made
NAME = re.compile(r"[a-z0-9_.-]+-\d{8}-\d{6}-[0-9a-f]{7}")


@dataclass(frozen=True)
class JobSpec:
    """A job's specification. `settings` are dotted parameters of `cluster`; `remote` says where the DVC remote is."""

    job: str
    command: list[str]
    head: str
    settings: dict[str, Any]
    remote: dict[str, Any]
    author: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "JobSpec":
        return cls(**json.loads((folder / "job_spec.json").read_text()))

    def write(self, folder: Path) -> None:
        (folder / "job_spec.json").write_text(json.dumps(asdict(self), indent=2))

    @property
    def identity(self) -> dict[str, str]:
        """Author and committer of the commits of experiments and results, as git's environment variables."""
        return {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in self.author.items()}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the command."""
        return {JOB_SETTINGS: json.dumps(self.settings), **self.identity}
