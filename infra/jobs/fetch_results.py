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
from infra.jobs.git import git, git_bytes, git_lines
from infra.jobs.git_bundle import shortened
from infra.jobs.job_spec import EXPERIMENT
from infra.jobs.results import BUNDLE, RUNNING, JobResults
from infra.jobs.save import EXPERIMENTS, RESULT_REF
from infra.jobs.submit import SUBMITTED_REFS
from infra.shell import call
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing

DVC = [sys.executable, "-m", "dvc"]


class ResultFetcher:
    """Fetches results of jobs into a checkout."""

    def __init__(self, folder: Path, results: JobResults) -> None:
        self._folder, self._results = folder, results

    def fetch(self, job: str, dry_run: bool) -> None:
        """Fetch experiments, or else files and outputs. Raises InputError naming what would be overwritten."""
        result = self._results.result(job)
        print(f"{job}: {result['state']}, as of {result['at']}: {' '.join(result['command'])}", file=sys.stderr)
        self._check_commits(result)
        with tempfile.TemporaryDirectory() as temporary:
            bundle = Path(temporary) / BUNDLE
            bundle.write_bytes(self._results.read(job, BUNDLE))
            heads = [line.split()[1] for line in git_lines(self._folder, "bundle", "list-heads", os.fspath(bundle))]
            experiments = [ref for ref in heads if ref.startswith(EXPERIMENTS)]
            if experiments:
                self._fetch_experiments(bundle, experiments, dry_run)
            else:
                self._fetch_result(bundle, result, dry_run)
        if not dry_run and result["state"] != RUNNING:
            git(self._folder, "update-ref", "-d", f"{SUBMITTED_REFS}/{job}")

    def _check_commits(self, result: dict[str, Any]) -> None:
        for commit in (result["head"], result["shipped"]):
            found = git_lines(self._folder, "rev-list", "--ignore-missing", "--max-count=1", commit, "--")
            if not found:
                raise InputError(
                    f"commit {commit[:7]}, at which the job ran, is not in this repository: `git fetch` first"
                )

    def _fetch_experiments(self, bundle: Path, refs: list[str], dry_run: bool) -> None:
        """Git's references of experiments, and their outputs in DVC's cache; files here stay as they are."""
        names = ", ".join(ref.rpartition("/")[2] for ref in refs)
        if dry_run:
            print(f"would bring experiments: {names}")
            return
        git(self._folder, "fetch", "--quiet", os.fspath(bundle), *(f"{ref}:{ref}" for ref in refs))
        self._fill_cache(refs)
        print(f"experiments: {names}; `dvc exp show` lists them, `dvc exp apply NAME` brings one to the workspace")

    def _fetch_result(self, bundle: Path, result: dict[str, Any], dry_run: bool) -> None:
        """Files and outputs; of experiments, whose files are to stay apart from those here, outputs alone."""
        git(self._folder, "fetch", "--quiet", os.fspath(bundle), f"+{RESULT_REF}:{RESULT_REF}")
        try:
            if result["command"][: len(EXPERIMENT)] == EXPERIMENT:
                self._fetch_outputs(result["state"], dry_run)
            else:
                self._fetch_files(result["shipped"], dry_run)
        finally:
            git(self._folder, "update-ref", "-d", RESULT_REF)

    def _fetch_outputs(self, state: str, dry_run: bool) -> None:
        """Those of finished stages, into DVC's cache: an experiment is there only when all of them are."""
        print(f"no experiment {'yet' if state == RUNNING else 'of it'}; files here stay as they are")
        if not dry_run:
            self._fill_cache([RESULT_REF])
        print(f"outputs of finished stages {'would be' if dry_run else 'are'} in DVC's cache")

    def _fill_cache(self, refs: list[str]) -> None:
        with open_repo(self._folder) as repository:
            path = remote(repository)["url"].partition("://")[2]
            with translate_remote_errors(path):
                repository.fetch(revs=[git(self._folder, "rev-parse", ref) for ref in refs], workspace=False)

    def _fetch_files(self, shipped: str, dry_run: bool) -> None:
        """Every file that the job changed, unless it was changed here; then the outputs that dvc.lock names."""
        names = git_lines(self._folder, "diff", "--name-only", "--no-renames", shipped, RESULT_REF)
        names = [name for name in names if self._content(name) != self._blob(RESULT_REF, name)]
        self._refuse_conflicts(shipped, names)
        if dry_run:
            print(f"would bring {', '.join(names) or 'no file'}, and what dvc.lock names")
            return
        for name in names:
            content = self._blob(RESULT_REF, name)
            if content is None:
                (self._folder / name).unlink()
                continue
            with replacing(self._folder / name) as partial:
                partial.write_bytes(content)
        call([*DVC, "pull", "--allow-missing"])
        print(f"brought {', '.join(names) or 'no new file'}, and what dvc.lock names")

    def _refuse_conflicts(self, shipped: str, names: list[str]) -> None:
        changed = [name for name in names if self._content(name) != self._blob(shipped, name)]
        if changed:
            raise InputError(
                f"{shortened(changed)}: changed here since the job was sent, and by it: commit or remove it first"
            )
        if outputs := self._changed_outputs():
            raise InputError(
                f"{shortened(outputs)}: not what dvc.lock says: `dvc commit`, `dvc checkout` or remove it first"
            )

    def _changed_outputs(self) -> list[str]:
        """Outputs here that dvc.lock does not name, and pulling would overwrite."""
        command = [*DVC, "data", "status", "--json"]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"`dvc data status`: {done.stderr.strip()}")
        found = json.loads(done.stdout).get("uncommitted", {})
        return sorted({*found.get("modified", []), *found.get("added", [])})

    def _content(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def _blob(self, commit: str, name: str) -> bytes | None:
        """A file at a commit."""
        if not git(self._folder, "ls-tree", commit, "--", name):
            return None
        return git_bytes(self._folder, "cat-file", "blob", f"{commit}:{name}")
