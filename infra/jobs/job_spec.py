"""What a job is told: which command at which commit, where, for whom. Knows no credentials."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm4seg.config.config import JOB_SETTINGS

EXPERIMENT = ["dvc", "exp", "run"]  # what comes home as an experiment, and changes no file here
NAME = re.compile(r"[a-z0-9_.-]+-\d{8}-\d{6}-[0-9a-f]{7}")


@dataclass(frozen=True)
class Order:
    """A job's order. `settings` are dotted parameters of `cluster`; `remote` says where the DVC remote is."""

    job: str
    command: list[str]
    head: str
    shipped: str
    settings: dict[str, Any]
    remote: dict[str, Any]
    author: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Order":
        return cls(**json.loads((folder / "order.json").read_text()))

    def write(self, folder: Path) -> None:
        (folder / "order.json").write_text(json.dumps(asdict(self), indent=2))

    @property
    def people(self) -> dict[str, str]:
        """Who the commits of experiments and results are by, in git's words."""
        return {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in self.author.items()}

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment."""
        return {JOB_SETTINGS: json.dumps(self.settings), **self.people}
