"""A copy of this project with tiny parameters, in its own git repository: a user's fresh clone."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llm4seg.config import Config
from tests.import_graph import ROOT
from tests.tiny import CHANGES, write_llama

FILES = ("llm4seg", "pipelines", "infra", "data/raw", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore")
FILES += ("dvc.yaml", "params.yaml", "pyproject.toml", "requirements.lock", "Makefile")
MODEL = {name: value for name, value in CHANGES.items() if name.startswith("model.")}
IGNORED = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True)
class Project:
    """A folder with the project, and the commands of a user in it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the caller's git, DVC, AWS or make settings; this Python first on the PATH."""
        empty = self.folder.parent / "no settings"
        settings = {
            name: str(empty) for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "GIT_CONFIG_GLOBAL")
        }
        people = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        return (
            outside
            | settings
            | people
            | {
                "DVC_SITE_CACHE_DIR": str(self.folder.parent / "site cache"),
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "COLUMNS": "200",
                "DVC_NO_ANALYTICS": "1",
            }
        )

    def run(self, *command: str, **environment: str) -> str:
        """Run a command, which must succeed; returns its stdout and stderr."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def dvc(self, *arguments: str, **environment: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, **environment)

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def change(self, dotted: str, value: Any) -> None:
        """Set one parameter in params.yaml."""
        path = self.folder / "params.yaml"
        values = yaml.safe_load(path.read_text())
        *parents, name = dotted.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        assert name in section
        section[name] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def stale(self) -> dict[str, list[str]]:
        """The stages whose own inputs differ from their last run, with what differs; `dvc status` in short."""
        status = json.loads(self.dvc("status", "--json"))
        return {
            stage: sorted(name for change in changes for kind in change.values() for name in kind)
            for stage, changes in status.items()
        }

    def record(self, name: str, output: str) -> None:
        """Keep what a command printed, beside the folder."""
        self.folder.with_name(f"{name}.txt").write_text(output, encoding="utf-8")

    def said(self, name: str) -> str:
        """What was recorded under that name."""
        return self.folder.with_name(f"{name}.txt").read_text(encoding="utf-8")

    def copied(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


def read_until(process: "subprocess.Popen[str]", sign: str) -> str:
    """What a process prints, up to the line with a sign."""
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if re.search(sign, line):
            return shown
    raise AssertionError(f"no {sign}:\n{shown}")


def make_project(root: Path) -> Project:
    """The project as a fresh clone, with tiny parameters and one commit."""
    project = Project(root / "project")
    for name in FILES:
        source, target = ROOT / name, project.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=IGNORED)
        else:
            shutil.copy2(source, target)
    shrink(project, root)
    project.git("init", "--quiet", "--initial-branch=main")
    project.commit("tiny parameters")
    return project


def shrink(project: Project, root: Path) -> None:
    """Give a project tiny parameters, and a tiny LLM in `root`."""
    for dotted, value in CHANGES.items():
        project.change(dotted, value)
    project.change("presets.default", Config.load(ROOT / "params.yaml").presets["default"] | MODEL)
    project.change("llm.source", str(write_llama(root / "llama")))
    project.change("llm.sha256", None)
    project.change("llm.layers", [])
    project.change("training.epochs", 2)
    project.change("cluster.launcher", "process")  # Ray takes longer to start than this to train
