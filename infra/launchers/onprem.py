"""A cluster of Ray's launcher on machines of one's own, reached by SSH: nothing to make, nothing to pay for."""

from infra.launchers.cloud import Config, Node
from infra.launchers.ray_internals import LocalNodeProvider


class OwnMachines:
    """See `infra.launchers.cloud.Cloud`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def wishes(self) -> list[str]:
        provider = self.config["provider"]
        return [f"on {provider['head_ip']} and {len(provider['worker_ips'])} others: setup_commands, then Ray"]

    def prepare(self, ssh_from: str | None, before: Config | None) -> Config:
        return self.config

    def nodes(self) -> list[Node]:
        """As the launcher on this machine remembers them; the head starts Ray on the others by itself."""
        provider = LocalNodeProvider(self.config["provider"], self.config["cluster_name"])
        running = provider.non_terminated_nodes({})
        return [self._node(provider.node_tags(name), name) for name in running]

    def _node(self, tags: dict[str, str], name: str) -> Node:
        kind, state = tags["ray-node-type"], tags.get("ray-node-status", "not set up")
        return Node(name, kind, "", "own", state, None, name)

    def end(self) -> None:
        """`ray down` has ended Ray there; the machines stay."""

    def left(self) -> list[str]:
        return []

    def forget(self) -> None:
        """Nothing was made."""
