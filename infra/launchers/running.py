"""A cluster that runs already, known by the address of its dashboard."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from llm4seg.utils.errors import InputError


class RunningCluster:
    """Jobs can be submitted to it; others start and end it."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def up(self, dry_run: bool) -> None:
        raise InputError(self._not_ours("start"))

    def down(self, dry_run: bool) -> None:
        raise InputError(self._not_ours("end"))

    def attach(self, dry_run: bool) -> None:
        raise InputError(self._not_ours("log in to"))

    def logs(self, dry_run: bool) -> None:
        raise InputError(f"{self._not_ours('watch')}; name a job to see its log")

    def _not_ours(self, do: str) -> str:
        return f"{self._address}: a cluster that runs already is not ours to {do}"

    def status(self, dry_run: bool) -> None:
        """Its nodes, and its jobs."""
        if dry_run:
            print(f"would list the nodes and jobs of {self._address}")
            return
        from infra.jobs.client import job_client

        with job_client(self.dashboard) as client:
            Console().print(_nodes(self._address), _jobs(client))

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        yield self._address


def _nodes(address: str) -> Table:
    from ray.util.state import list_nodes

    table = Table("node", "state", "CPU", "GPU", "memory", title=address, title_justify="left")
    for node in list_nodes(address=address, limit=1000):
        total = node.resources_total
        memory = f"{total.get('memory', 0) / 2**30:.0f} GiB"
        head = " (head)" if node.is_head_node else ""
        table.add_row(
            f"{node.node_ip}{head}", node.state.lower(), *(f"{total.get(k, 0):g}" for k in ("CPU", "GPU")), memory
        )
    return table


def _jobs(client: object) -> Table:
    table = Table("job", "state", "by", "command")
    for job in client.list_jobs():  # type: ignore[attr-defined]
        about = job.metadata or {}
        if job.submission_id:
            table.add_row(job.submission_id, job.status.value.lower(), about.get("user"), about.get("command"))
    return table
