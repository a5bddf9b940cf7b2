"""A submission: what the laptop checks and packs before a job is sent."""

import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.jobs import bootstrap
from infra.jobs.dvc_repo import open_repo, read_but_not_sent, remote, uncached
from infra.jobs.errors import translate_dvc_errors
from infra.jobs.git import commit_to_send, git, git_lines, shortened, write_bundle
from infra.jobs.job_spec import COMMANDS, JobSpec
from infra.storage.s3_location import DEFAULT_REGION, storage_url
from llm4seg.config import Config
from llm4seg.utils.errors import InputError

RUNS_NOTHING = ("--queue", "--dry", "--help", "-h")  # options with which DVC only writes down, or prints
LARGEST = 400 * 2**20  # bytes; Ray takes 512 MiB


def parse_settings(words: list[str]) -> dict[str, Any]:
    """`cluster.workers=4` and the like. Raises InputError for other sections: those make what a commit says untrue."""
    settings = {}
    for word in words:
        dotted, found, value = word.partition("=")
        if not found or not dotted.startswith("cluster."):
            raise InputError(
                f"--set: found {word}, allowed: cluster.NAME=VALUE, which says where a run happens; what it computes "
                "is the commit's (or `-- dvc exp run -S NAME=VALUE`)"
            )
        try:
            settings[dotted] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set: found {word}, allowed: a value in YAML: {' '.join(str(error).split())}") from None
    return settings


@dataclass(frozen=True)
class Submission:
    """A checkout that jobs are submitted from: its root, the commit to send, the settings of its DVC remote."""

    folder: Path
    commit: str
    remote: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Submission":
        """Raises InputError naming what a job would not get: changes, files that stages read, a remote."""
        with translate_dvc_errors(), open_repo(folder) as repository:
            commit, settings = commit_to_send(folder), remote(repository)
            outs = uncached(repository)
            untracked = git_lines(folder, "ls-files", "--others", "--exclude-standard")
            missing = [name for name in untracked if name not in outs]
            read = read_but_not_sent(repository, missing)
        if read:
            raise InputError(
                f"{shortened(read)}: read by a stage, and neither in git nor in DVC: `git add` or `dvc add`"
            )
        if missing:
            print(f"not sent, since git does not track it: {shortened(missing)}", file=sys.stderr)
        return cls(folder, commit, settings)

    def job_spec(self, command: list[str], changes: Mapping[str, Any], gpu_nodes: bool = False) -> JobSpec:
        """The job's specification. Raises InputError for another command than DVC's, and for settings that do not fit.

        `gpu_nodes`: the autoscaler adds nodes with GPUs only on request, which `cluster.device: auto` does not.
        """
        if not any(command[: len(start)] == start for start in COMMANDS):
            raise InputError(f"found `{shlex.join(command)}`, allowed: dvc repro ..., dvc exp run ...")
        if idle := [word for word in command if word in RUNS_NOTHING]:
            raise InputError(f"found `{shlex.join(command)}`, allowed: without {idle[0]}, with which nothing would run")
        config = Config.load(self.folder / "params.yaml")
        storage = config.cluster.storage or storage_beside(self.remote)
        settings: dict[str, Any] = {"cluster.launcher": "ray", "cluster.address": "auto", "cluster.data": "pull"}
        settings |= {"cluster.storage": storage} | ({"cluster.gpus": None} if config.cluster.gpus else {})
        if gpu_nodes and config.cluster.device == "auto":
            settings["cluster.device"] = "cuda"
        settings |= changes
        config.override(settings)
        name = re.sub(r"[^a-z0-9_.-]+", "-", self.folder.name.lower()).strip("-.") or "job"
        job = f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{self.commit[:7]}"
        return JobSpec(job, command, self.commit, settings, self.remote, self._author())

    def _author(self) -> dict[str, str]:
        """Name and email, as git would write them into a commit here."""
        found = re.match(r"(.*) <(.*)> ", git(self.folder, "var", "GIT_AUTHOR_IDENT"))
        assert found, "git var prints NAME <EMAIL> SECONDS ZONE"
        return {"NAME": found[1], "EMAIL": found[2]}

    def describe(self, spec: JobSpec) -> None:
        """Print what is sent."""
        print(f"commit {spec.head[:7]}: {shlex.join(spec.command)}", file=sys.stderr)
        for dotted, value in spec.settings.items():
            print(f"  {dotted}: {value}", file=sys.stderr)

    @contextmanager
    def working_dir(self, spec: JobSpec) -> Iterator[Path]:
        """A temporary folder with all that is sent, Ray's `working_dir` of the job."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_bundle(self.folder, self.commit, folder / "snapshot.bundle")
            if (size := (folder / "snapshot.bundle").stat().st_size) > LARGEST:
                raise InputError(
                    f"the commit's files: {size / 2**20:.0f} MiB, allowed: {LARGEST / 2**20:.0f} MiB: "
                    "large files belong into DVC (`dvc add`)"
                )
            spec.write(folder)
            shutil.copy(bootstrap.__file__, folder)
            yield folder


def storage_beside(remote: Mapping[str, Any]) -> str:
    """`cluster.storage` in the bucket of the DVC remote: the folder `runs` beside it."""
    url = str(remote["url"]).rstrip("/")
    if not url.startswith("s3://"):
        raise InputError(f"cluster.storage: found null, and {url} is not on S3: set it, or --set cluster.storage=...")
    endpoint = remote.get("endpointurl") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    default = os.environ.get("AWS_DEFAULT_REGION", DEFAULT_REGION) if endpoint else None
    return storage_url(f"{url.rpartition('/')[0]}/runs", endpoint, remote.get("region") or default)
