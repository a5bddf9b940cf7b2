"""`llm4seg init DIR`: a project of a user's own, with the parameters and stages of the installed package."""

import argparse
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from llm4seg.project.code_file import CODE, COMMAND, write_code_file
from llm4seg.utils.errors import InputError
from llm4seg.utils.extras import install, installed
from llm4seg.utils.logs import add_flags, configure

log = logging.getLogger("llm4seg.project.create")  # it may be run as __main__

TEMPLATES = Path(__file__).parent  # the repository's own files: links in a clone, copies in a wheel
IGNORED = (
    "# What DVC and git pass over\n__pycache__/\n.*.partial\n.*.old\n.venv/\n.cache/\n.runs/\n.study/\n.tracking/\n"
)
DVC_FOLDER = {
    "config": "[core]\n    analytics = false\n    check_update = false\n",
    ".gitignore": "/config.local\n/tmp\n/cache\n",
}
README = """# A project of llm4seg

Made by `llm4seg init` of version {version}. All values are in `params.yaml`, the stages in `dvc.yaml`; your images go
into `data/raw` (its README.md says how). `pip install 'llm4seg[all]=={version}'` installs what it needs.

    llm4seg doctor     # what is missing on this machine
    dvc repro          # whatever is not up to date; after an upgrade of llm4seg, too
    python -m pipelines.summary

Commit params.yaml, dvc.yaml, dvc.lock, code.json (digests of the package's code, by which DVC knows what an upgrade
changed) and what DVC lists. `dvc exp run -S NAME=VALUE` tries other values.
"""
HEADER = f"""# The pipeline of llm4seg, as the installed package has it. Of that package's code, stages list digests in
# code.json, which the stage `code` brings up to date each time.

stages:
  code:
    cmd: {COMMAND}
    always_changed: true
    outs:
      - {CODE}: {{cache: false, persist: true}}

"""


def create(folder: Path) -> None:
    """Write a project into a new or empty folder. Raises InputError where it is neither."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there and not empty, allowed: a new or an empty folder")
    for inner in (".dvc", "data/raw"):
        (folder / inner).mkdir(parents=True)
    dvc_yaml = (TEMPLATES / "dvc.yaml").read_text(encoding="utf-8")
    texts = {
        "params.yaml": (TEMPLATES / "params.yaml").read_text(encoding="utf-8"),
        "dvc.yaml": project_stages(dvc_yaml),
        "data/raw/README.md": (TEMPLATES / "raw.md").read_text(encoding="utf-8"),
        "README.md": README.format(version=version("llm4seg")),
        ".gitignore": IGNORED,
        ".dvcignore": IGNORED,
        **{f".dvc/{name}": text for name, text in DVC_FOLDER.items()},
    }
    if not _in_git(folder):
        texts[".dvc/config"] += "    no_scm = true\n"
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_code_file(folder)


def project_stages(text: str) -> str:
    """This repository's dvc.yaml for a project: what stages list of its code becomes parameters in code.json."""
    _, stages = text.split("stages:\n", 1)
    return HEADER + re.sub(r"(?ms)^  \w+:\n.*?(?=^  \w+:\n|^\w|\Z)", _project_stage, stages)


def _project_stage(stage: re.Match[str]) -> str:
    """A stage of dvc.yaml in its project's form."""
    listed = r"(?m)^      - (llm4seg|pipelines)/(\w+)(?:\.py)?\n"
    names = ", ".join(f"{package}.{name}" for package, name in re.findall(listed, stage[0]))
    others = re.sub(listed, "", stage[0])
    others = re.sub(r"(?m)^    deps:\n(?!      )", "", others)  # where it listed code alone
    return re.sub(r"(?m)^    params: \[(.*)\]", rf"    params: [\1, {CODE}: [{names}]]", others)


def _in_git(folder: Path) -> bool:
    """Whether the folder is in a git repository; makes one there if git is installed and there is none."""
    if shutil.which("git") is None:
        return False
    known = subprocess.run(["git", "rev-parse", "--is-inside-work-tree"], cwd=folder, capture_output=True)
    if known.returncode:
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return True


def main(words: Sequence[str] | None = None, prog: str = "llm4seg init") -> None:
    """Exit 1 with one line for a folder that is not empty or cannot be written."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write a project that runs the installed package: params.yaml, dvc.yaml, and git around them.",
        epilog=f"example: {prog} my-project",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new or an empty folder")
    add_flags(parser)
    arguments = parser.parse_args(words)
    folder = arguments.folder
    try:
        configure(arguments.log)
        create(folder)
    except (InputError, OSError) as error:
        sys.exit(f"init: {error}")
    log.info(f"{folder}: a project; next: cd {folder} && llm4seg doctor && dvc repro")
    if not installed("dvc"):
        log.warning(f"init: there is no DVC here, which runs the stages: {install('dvc')}")


if __name__ == "__main__":
    main()
