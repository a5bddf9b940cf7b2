"""Results of a job, fetched to where they would be if the command had run here."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from infra.jobs.dvc_repo import open_repo, remote
from infra.jobs.errors import translate_remote_errors
from infra.jobs.git import git, git_bytes, git_lines, shortened
from infra.jobs.job_spec import EXPERIMENT
from infra.jobs.results import BUNDLE, RUNNING, JobResults
from infra.jobs.save import EXPERIMENTS, RESULT_REF
from infra.shell import call
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing

DVC = [sys.executable, "-m", "dvc"]


def fetch(folder: Path, results: JobResults, job: str, dry_run: bool) -> None:
    """Fetch experiments, or else files and outputs. Raises InputError naming what would be overwritten."""
    result = results.result(job)
    print(f"{job}: {result['state']}, as of {result['at']}: {' '.join(result['command'])}", file=sys.stderr)
    commit = result["head"]
    if not git_lines(folder, "rev-list", "--ignore-missing", "--max-count=1", commit, "--"):
        raise InputError(f"commit {commit[:7]}, at which the job ran, is not in this repository: `git fetch` first")
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / BUNDLE
        bundle.write_bytes(results.read(job, BUNDLE))
        heads = [line.split()[1] for line in git_lines(folder, "bundle", "list-heads", os.fspath(bundle))]
        if experiments := [ref for ref in heads if ref.startswith(EXPERIMENTS)]:
            _fetch_experiments(folder, bundle, experiments, dry_run)
        else:
            _fetch_result(folder, bundle, result, dry_run)


def _fetch_experiments(folder: Path, bundle: Path, refs: list[str], dry_run: bool) -> None:
    """Git's references of experiments, and their outputs in DVC's cache; files here stay as they are."""
    names = ", ".join(ref.rpartition("/")[2] for ref in refs)
    if dry_run:
        print(f"would bring experiments: {names}")
        return
    git(folder, "fetch", "--quiet", os.fspath(bundle), *(f"{ref}:{ref}" for ref in refs))
    _fill_cache(folder, refs)
    print(f"experiments: {names}; `dvc exp show` lists them, `dvc exp apply NAME` brings one to the workspace")


def _fetch_result(folder: Path, bundle: Path, result: dict[str, Any], dry_run: bool) -> None:
    """Files and outputs. An experiment is there only when all its stages are finished: before, outputs alone."""
    git(folder, "fetch", "--quiet", os.fspath(bundle), f"+{RESULT_REF}:{RESULT_REF}")
    try:
        if result["command"][: len(EXPERIMENT)] != EXPERIMENT:
            _fetch_files(folder, result["head"], dry_run)
            return
        print(f"no experiment {'yet' if result['state'] == RUNNING else 'of it'}; files here stay as they are")
        if not dry_run:
            _fill_cache(folder, [RESULT_REF])
        print(f"outputs of finished stages {'would be' if dry_run else 'are'} in DVC's cache")
    finally:
        git(folder, "update-ref", "-d", RESULT_REF)


def _fill_cache(folder: Path, refs: list[str]) -> None:
    """Fetch the outputs of commits into DVC's cache."""
    with open_repo(folder) as repository, translate_remote_errors(remote(repository)["url"].partition("://")[2]):
        repository.fetch(revs=[git(folder, "rev-parse", ref) for ref in refs], workspace=False)


def _fetch_files(folder: Path, sent: str, dry_run: bool) -> None:
    """Every file that the job changed, unless it was changed here; then the outputs that dvc.lock names."""
    names = git_lines(folder, "diff", "--name-only", "--no-renames", sent, RESULT_REF)
    names = [name for name in names if _content(folder, name) != _blob(folder, RESULT_REF, name)]
    _refuse_conflicts(folder, sent, names)
    if dry_run:
        print(f"would bring {', '.join(names) or 'no file'}, and what dvc.lock names")
        return
    for name in names:
        content = _blob(folder, RESULT_REF, name)
        if content is None:
            (folder / name).unlink()
            continue
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    call([*DVC, "pull", "--allow-missing"])
    print(f"brought {', '.join(names) or 'no new file'}, and what dvc.lock names")


def _refuse_conflicts(folder: Path, sent: str, names: list[str]) -> None:
    """Raise InputError for files, and for outputs that dvc.lock does not name, which would be overwritten."""
    if changed := [name for name in names if _content(folder, name) != _blob(folder, sent, name)]:
        raise InputError(
            f"{shortened(changed)}: changed here since the job was sent, and by it: commit or remove it first"
        )
    done = subprocess.run([*DVC, "data", "status", "--json"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"`dvc data status`: {done.stderr.strip()}")
    found = json.loads(done.stdout).get("uncommitted", {})
    if outputs := sorted({*found.get("modified", []), *found.get("added", [])}):
        raise InputError(
            f"{shortened(outputs)}: not what dvc.lock says: `dvc commit`, `dvc checkout` or remove it first"
        )


def _content(folder: Path, name: str) -> bytes | None:
    path = folder / name
    return path.read_bytes() if path.is_file() else None


def _blob(folder: Path, commit: str, name: str) -> bytes | None:
    """A file at a commit."""
    found = git(folder, "ls-tree", commit, "--", name)
    return git_bytes(folder, "cat-file", "blob", f"{commit}:{name}") if found else None
