"""A Ray cluster of several nodes on this machine that share nothing but the network and the head's session folder."""

import contextlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.ray_internals import reset_auth_token_state

Node = Any


class Nodes:
    """A head without cores, where a driver runs, and nodes with one core and a home of their own each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0})
        self.address: str = self._cluster.address

    def home(self, name: str) -> Path:
        return self.root / name / "home"

    def add(self, name: str) -> Node:
        """Start a node whose processes have their home and temporary folder under a folder of that name."""
        folders = {"HOME": self.home(name), "TMPDIR": self.root / name / "tmp", "DVC_SITE_CACHE_DIR": self.root / name}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        environment = {variable: str(folder) for variable, folder in folders.items()}
        with contextlib.chdir(self.root / name):
            return self._cluster.add_node(num_cpus=1, env_vars=environment | {"OMP_NUM_THREADS": "1"})

    def kill(self, node: Node) -> None:
        """Kill a node with all its processes, without a warning."""
        self._cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def reachable(address: str) -> Iterator[None]:
    """Let this process and those that it starts find a Ray of this user, and its token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", address)  # another Ray may run on this machine
        patch.setenv("RAY_AUTH_MODE", "token")
        reset_auth_token_state()
        yield
    reset_auth_token_state()


@contextmanager
def nodes(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Context manager of a cluster whose nodes require a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    reset_auth_token_state()  # this process may have read another one
    cluster = Nodes(root)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # another Ray may run on this machine
    try:
        yield cluster
    finally:
        cluster.shutdown()
        monkeypatch.undo()
        reset_auth_token_state()
