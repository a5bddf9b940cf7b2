"""A connection to Ray: this machine as a cluster of its own, or one that is running already."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llm4seg
from llm4seg.config.schema import Cluster
from llm4seg.utils.errors import InputError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about medical work leaves the machine unasked
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
# Ray warns of more processes than cores, and leaves out twice so many; ours are many since most of them only wait
os.environ.setdefault("RAY_max_io_workers", "32")
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's old output can be switched off, which `verbose=0` does
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's own makes Ctrl-C look like a finished search


@contextmanager
def ray_session(section: Cluster) -> Iterator[None]:
    """Connect to `cluster.address`, or start Ray here and end it afterwards, however the block ends."""
    import ray

    from llm4seg.cluster.storage import sweep

    _connect(section)
    try:
        if section.address is not None:
            print(where(section), file=sys.stderr, flush=True)
        yield
    finally:
        ray.shutdown()
        sweep()


def _connect(section: Cluster) -> None:
    import ray

    from llm4seg.cluster.ray_internals import require_token

    if section.address is None:
        require_token()
    try:
        ray.init(
            address=section.address or "local",
            **(_here() if section.address is None else _cluster()),
            log_to_driver=False,
            logging_level="WARNING",
        )
    except ConnectionError as error:
        raise InputError(f"cluster.address: found {section.address!r}, where no Ray cluster answers: {error}") from None
    except Exception as error:
        if type(error) is not Exception:  # what Ray raises when one of its processes does not start
            raise
        said = next((line for line in str(error).splitlines() if line.strip()), "nothing")
        raise InputError(f"Ray did not start on this machine; if it is busy, run it again. Ray says: {said}") from None


def _here() -> dict[str, Any]:
    """Options of Ray on this machine; without its state API, it leaks the workers of stopped trials."""
    return {"include_dashboard": True, "dashboard_host": "127.0.0.1"}


def _cluster() -> dict[str, Any]:
    """Options for a cluster: its nodes run this code, not theirs. Made anew each time, since Ray writes into them."""
    return {"runtime_env": {"py_modules": [str(Path(llm4seg.__file__).parent)]}}


def where(section: Cluster) -> str:
    """On what a cluster's workers will train, in words."""
    there, needed = _gpus(section), section.fewest * section.gpus_per_worker
    if not uses_gpu(section):
        return f"cluster: workers train on CPUs; it has {there:g} GPUs, and cluster.device is {section.device}"
    missing = f", {there:g} are there and nodes with more are waited for" if there < needed else ""
    return f"cluster: workers train on GPUs; {needed:g} are asked for{missing}"


def uses_gpu(section: Cluster) -> bool:
    """Whether workers train on GPUs: as told, or when there is one for each of the fewest.

    A cluster that is told so is believed: nodes with GPUs may come only when somebody asks for them.
    """
    there, needed = _gpus(section), section.fewest * section.gpus_per_worker
    if section.device == "cuda" and there < needed and section.address is None:
        raise InputError(
            f"cluster.device: found cuda, but this machine has {there:g} GPUs for cluster.workers = {section.fewest}"
        )
    return section.device == "cuda" or (section.device == "auto" and there >= needed)


def _gpus(section: Cluster) -> float:
    """How many GPUs there are; on this machine, only if torch can use them."""
    import ray
    import torch

    usable = section.address is not None or torch.backends.cuda.is_built()
    return float(ray.cluster_resources().get("GPU", 0)) if usable else 0


def cpus_per_worker(section: Cluster) -> int:
    """CPU cores that each worker asks for: as told, or its share of a node's.

    Raises InputError where so many workers have no room and no more nodes are to be expected.
    """
    nodes, gpus = _nodes(), gpus_per_worker(section)
    share = section.cpus_per_worker or fair_share(nodes, section.most, gpus)
    if not _more_may_come(section) and room(nodes, share, gpus) < section.fewest:
        cores = int(sum(node.get("CPU", 0) for node in nodes))
        raise InputError(
            f"cluster.workers: found {section.fewest} x {share} CPU cores, allowed: the cluster's {cores} in all"
        )
    return share


def gpus_per_worker(section: Cluster) -> float:
    """GPUs, or what part of one, each worker asks for; 0 where they train on CPUs."""
    return section.gpus_per_worker if uses_gpu(section) else 0.0


def runs_at_once(section: Cluster) -> int:
    """How many trainings go on side by side: as many as have room, or `trials` where nodes for them may come."""
    workers = room(_nodes(), cpus_per_worker(section), gpus_per_worker(section))
    return max(workers // section.most, section.trials if _more_may_come(section) else 1)


def _more_may_come(section: Cluster) -> bool:
    """Whether nodes that are asked for may still come: see `uses_gpu`."""
    return section.address is not None and uses_gpu(section)


def _nodes() -> list[dict[str, float]]:
    """What each node has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def fair_share(nodes: Sequence[Mapping[str, float]], workers: int, gpus: float) -> int:
    """The most CPU cores for each of so many workers such that all have room; 1 where they have none at all."""
    most = int(max((node.get("CPU", 0) for node in nodes), default=1))
    return next((share for share in range(most, 1, -1) if room(nodes, share, gpus) >= workers), 1)


def room(nodes: Sequence[Mapping[str, float]], cpus: int, gpus: float) -> int:
    """How many workers of so many CPU cores and GPUs there is room for: each is on one node."""

    def on(node: Mapping[str, float]) -> int:
        by_cpu = node.get("CPU", 0) // cpus
        return int(min(by_cpu, node.get("GPU", 0) // gpus) if gpus else by_cpu)

    return sum(map(on, nodes))
