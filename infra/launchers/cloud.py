"""What differs between AWS and machines of one's own, for a cluster of Ray's launcher."""

from dataclasses import dataclass
from typing import Any, Protocol

Config = dict[str, Any]  # a file of Ray's cluster launcher


@dataclass(frozen=True)
class Node:
    """A node as its cloud knows it."""

    name: str
    kind: str  # head | worker
    node_type: str
    market: str
    state: str
    started: float | None  # seconds since the epoch
    address: str


class Cloud(Protocol):
    """Everything raises InputError for what the user has to settle."""

    def requirements(self) -> list[str]:
        """What `prepare` creates, one line each, for a dry run."""

    def prepare(self, ssh_from: str | None, before: Config | None) -> Config:
        """Make what the nodes need, if it is not there, and return the cluster's file with it filled in.

        `ssh_from`: who may come by SSH; null: this machine.
        `before`: what this returned last time, while the cluster may be running.
        """

    def nodes(self) -> list[Node]:
        """The nodes that have not ended, the head first."""

    def terminate(self) -> None:
        """Terminate what `ray down` left, and delete what would stand in the way of the next `up` or open a port."""

    def leftovers(self) -> list[str]:
        """What is still there and billed, one line each."""

    def forget(self) -> None:
        """Delete what `prepare` created and costs nothing."""


def node_configs(config: Config) -> list[dict[str, Any]]:
    """What each node type asks the cloud for; the head's among them."""
    return [node["node_config"] for node in config["available_node_types"].values()]


def head_config(config: Config) -> dict[str, Any]:
    head: dict[str, Any] = config["available_node_types"][config["head_node_type"]]["node_config"]
    return head


def worker_configs(config: Config) -> list[dict[str, Any]]:
    types = config["available_node_types"]
    return [node["node_config"] for name, node in types.items() if name != config["head_node_type"]]
