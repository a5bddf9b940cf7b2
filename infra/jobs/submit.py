"""What is checked and put together on the laptop before a job is sent."""

import getpass
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
from urllib.parse import urlencode, urlsplit

import yaml

from infra.jobs import bootstrap as enter
from infra.jobs.dvc_repo import read_but_not_sent, remote, uncached, workspace
from infra.jobs.errors import explained_by_dvc
from infra.jobs.git import git, lines
from infra.jobs.git_bundle import Tree, pack, some, tree, untracked
from infra.jobs.job_spec import Order
from llm4seg.config import Config
from llm4seg.utils.errors import InputError

LARGEST = 400 * 2**20  # bytes; Ray takes 512 MiB
KEPT = "refs/infra/jobs"


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
        settings[dotted] = yaml.safe_load(value)
    return settings


@dataclass(frozen=True)
class Outbox:
    """A checkout that jobs are sent from: its root, the commits to send, and where its DVC remote is."""

    folder: Path
    sent: Tree
    remote: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, include_changes: bool) -> "Outbox":
        """Raises InputError naming what a job would not get: changes, files that stages read, a remote."""
        with explained_by_dvc(), workspace(folder) as repository:
            sent, place = tree(folder, include_changes), remote(repository)
            outs = uncached(repository)
            missing = [name for name in untracked(folder) if name not in outs]
            read = read_but_not_sent(repository, missing)
        if read:
            raise InputError(f"{some(read)}: read by a stage, and neither in git nor in DVC: `git add` or `dvc add`")
        if missing:
            print(f"not sent, since git does not track it: {some(missing)}", file=sys.stderr)
        return cls(folder, sent, place)

    def order(self, command: list[str], changes: Mapping[str, Any], gpus_come: bool = False) -> Order:
        """The job's order. Raises InputError when its settings do not go with the parameters.

        `gpus_come`: nodes with GPUs come only when somebody asks for them, which `cluster.device: auto` does not.
        """
        config = Config.load(self.folder / "params.yaml")
        storage = config.cluster.storage or storage_beside(self.remote)
        settings = {"cluster.address": "auto", "cluster.data": "pull", "cluster.storage": storage}
        if gpus_come and config.cluster.device == "auto":
            settings["cluster.device"] = "cuda"
        settings |= changes
        config.override(settings)
        name = re.sub(r"[^a-z0-9_.-]+", "-", self.folder.name.lower()).strip("-.") or "job"
        job = f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{self.sent.head[:7]}"
        return Order(job, command, self.sent.head, self.sent.shipped, settings, self.remote, self._author())

    def _author(self) -> dict[str, str]:
        """Who the job is by, as git knows them."""
        name, email = (lines(self.folder, "config", "--default=", f"user.{key}") for key in ("name", "email"))
        user = os.environ.get("GIT_AUTHOR_NAME") or (name or [""])[0] or getpass.getuser()
        return {"NAME": user, "EMAIL": os.environ.get("GIT_AUTHOR_EMAIL") or (email or [""])[0] or f"{user}@localhost"}

    def describe(self, order: Order) -> None:
        """Say what is sent."""
        changes = "" if order.head == order.shipped else ", with uncommitted changes"
        print(f"commit {order.head[:7]}{changes}: {shlex.join(order.command)}", file=sys.stderr)
        for dotted, value in order.settings.items():
            print(f"  {dotted}: {value}", file=sys.stderr)

    @contextmanager
    def packed(self, order: Order) -> Iterator[Path]:
        """Lend a folder with all that is sent."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            pack(self.folder, self.sent, folder / "tree.bundle")
            if (size := (folder / "tree.bundle").stat().st_size) > LARGEST:
                raise InputError(
                    f"the commit's files: {size / 2**20:.0f} MiB, allowed: {LARGEST / 2**20:.0f} MiB: "
                    "large files belong into DVC (`dvc add`)"
                )
            order.write(folder)
            shutil.copy(enter.__file__, folder / "enter.py")
            yield folder

    def keep(self, order: Order) -> None:
        """Let git keep a commit that is on no branch until `fetch` has compared with it."""
        if order.shipped != order.head:
            git(self.folder, "update-ref", f"{KEPT}/{order.job}", order.shipped)


def storage_beside(remote: Mapping[str, Any]) -> str:
    """`cluster.storage` in the bucket of the DVC remote: the folder `runs` beside it."""
    url = str(remote["url"]).rstrip("/")
    if not url.startswith("s3://"):
        raise InputError(f"cluster.storage: found null, and {url} is not on S3: set it, or --set cluster.storage=...")
    endpoint = remote.get("endpointurl") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    query = {}
    if endpoint:
        place = urlsplit(endpoint)
        query = {"endpoint_override": place.netloc, "scheme": place.scheme}
    if region := remote.get("region") or (endpoint and os.environ.get("AWS_DEFAULT_REGION", "us-east-1")):
        query["region"] = region
    return f"{url.rpartition('/')[0]}/runs" + (f"?{urlencode(query, safe=':')}" if query else "")
