"""Experiments of DVC by name: their outputs, copied out of DVC's cache or remote."""

import subprocess
import sys
from pathlib import Path

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import require
from llm4seg.utils.files import read_json


def fetch_experiment(name: str, config: Config, target: Path) -> Path:
    """Copy to `target` what the table needs of an experiment (or a commit): its study, if it has run one, else its
    test scores. Returns the folder to read.

    Raises InputError with DVC's last line where the experiment, or one of its outputs, is not there.
    """
    require("dvc", f"{name}: no folder, so an experiment of DVC")
    study = _get(name, config.paths.study, target / "study")
    if read_json(study / "study.json")["finished"]:
        return study
    _get(name, config.paths.metrics, target / "metrics.json")
    _get(name, config.paths.evaluation, target / "evaluation")
    _get(name, config.paths.model / "model.json", target / "model" / "model.json")
    return target


def _get(name: str, path: Path, target: Path) -> Path:
    """`dvc get` a path of the project at a revision."""
    root = next((one for one in path.parents if (one / ".dvc").is_dir()), None)
    if root is None:
        raise InputError(f"{name}: no such folder, and {path.parent} is in no DVC workspace; allowed: a folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    words = ["get", str(root), str(path.relative_to(root)), "--rev", name, "-o", str(target)]
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise InputError(
            f"{name}: no such folder, and as an experiment of DVC: {errors[-1].removeprefix('ERROR: ')}; allowed: a "
            "folder, or a name of `dvc exp show`"
        )
    return target
