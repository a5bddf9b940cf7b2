"""Ray session: a connection to a cluster of this machine alone, or to a running cluster."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llm4seg
from llm4seg.config.schema import Cluster
from llm4seg.utils.errors import InputError
from llm4seg.utils.logs import VARIABLE
from llm4seg.utils.openmp import wait_policy

log = logging.getLogger(__name__)

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no usage data about medical work
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
# Ray warns of more processes than cores, not counting twice this number; most of the processes here only wait
os.environ.setdefault("RAY_max_io_workers", "32")
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's old output can be switched off, which `verbose=0` does
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # with Tune's handler, Ctrl-C would end a search as finished


@contextmanager
def ray_session(section: Cluster) -> Iterator[None]:
    """Connect to `cluster.address`, or start Ray on this machine; disconnects or ends it when the block ends."""
    import ray

    from llm4seg.cluster.storage import sweep

    start = time.monotonic()
    _connect(section)
    try:
        log.debug("Ray is there after %.1f s, with %s", time.monotonic() - start, ray.cluster_resources())
        if section.address is not None:
            log.info(where(section))
        yield
    finally:
        ray.shutdown()
        sweep()


def _connect(section: Cluster) -> None:
    import ray

    from llm4seg.cluster.local_ray import prepare_token, use_private_folders
    from llm4seg.cluster.ray_internals import lacks_token, require_token

    if section.address is None:
        use_private_folders()
        require_token()
        prepare_token(lacks_token())
    try:
        ray.init(
            address=section.address or "local",
            **(_local_options() if section.address is None else _cluster_options()),
            log_to_driver=False,
            logging_level="WARNING",
        )
    except ConnectionError as error:
        raise InputError(f"cluster.address: found {section.address!r}, where no Ray cluster answers: {error}") from None
    except Exception as error:
        if type(error) is not Exception:  # Ray raises Exception itself when one of its processes does not start
            raise
        cause = next((line for line in str(error).splitlines() if line.strip()), "nothing")
        raise InputError(f"Ray did not start on this machine; if it is busy, run it again. Ray says: {cause}") from None


def _local_options() -> dict[str, Any]:
    """Options of `ray.init` on this machine; without its state API, Ray leaks workers of stopped trials."""
    return {"include_dashboard": True, "dashboard_host": "127.0.0.1"}


def _cluster_options() -> dict[str, Any]:
    """Options of `ray.init` on a cluster: nodes run a copy of this code, which logs, and waits, as this process does.

    A new dict each time, since Ray changes it.
    """
    level = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
    return {"runtime_env": {"py_modules": [str(Path(llm4seg.__file__).parent)], "env_vars": level | wait_policy()}}


def where(section: Cluster) -> str:
    """A line with the devices that a cluster's workers will train on."""
    gpus, needed = _gpus(section), section.fewest * section.gpus_per_worker
    if not uses_gpu(section):
        return f"cluster: workers train on CPUs; it has {gpus:g} GPUs, and cluster.device is {section.device}"
    missing = f", {gpus:g} are there and nodes with more are waited for" if gpus < needed else ""
    return f"cluster: workers train on GPUs; {needed:g} are asked for{missing}"


def uses_gpu(section: Cluster) -> bool:
    """Whether workers train on GPUs: `cluster.device`, or with `auto` whether the fewest workers all get their GPUs.

    With `cuda`, a cluster need not have the GPUs yet, since an autoscaler may add nodes only when workers request
    them. Raises InputError where the device is `cuda` and this machine, without a cluster, has too few GPUs.
    """
    gpus, needed = _gpus(section), section.fewest * section.gpus_per_worker
    if section.device == "cuda" and gpus < needed and section.address is None:
        raise InputError(
            f"cluster.device: found cuda, but this machine has {gpus:g} GPUs for cluster.workers = {section.fewest}"
        )
    return section.device == "cuda" or (section.device == "auto" and gpus >= needed)


def _gpus(section: Cluster) -> float:
    """The number of GPUs of the cluster; 0 on this machine where torch cannot use them."""
    import ray
    import torch

    usable = section.address is not None or torch.backends.cuda.is_built()
    return float(ray.cluster_resources().get("GPU", 0)) if usable else 0


def cpus_per_worker(section: Cluster) -> int:
    """The number of CPU cores of each worker: `cluster.cpus_per_worker`, or a fair share of a node's cores.

    On GPUs, the share with which other runs' workers have room on the other GPUs, or on the rest of a shared one.
    Raises InputError where the workers do not fit on the nodes and no more nodes are expected.
    """
    nodes, gpus = _nodes(), gpus_per_worker(section)
    side_by_side = max(section.most, room(nodes, 1, gpus) if gpus else 0)
    share = section.cpus_per_worker or fair_share(nodes, side_by_side, gpus)
    if not _more_may_come(section) and room(nodes, share, gpus) < section.fewest:
        cores = int(sum(node.get("CPU", 0) for node in nodes))
        raise InputError(
            f"cluster.workers: found {section.fewest} x {share} CPU cores, allowed: the cluster's {cores} in all"
        )
    return share


def gpus_per_worker(section: Cluster) -> float:
    """The number of GPUs of each worker, maybe a fraction; 0 where workers train on CPUs."""
    return section.gpus_per_worker if uses_gpu(section) else 0.0


def runs_at_once(section: Cluster) -> int:
    """The number of concurrent trainings: as many as fit, at least `trials` where nodes may be added."""
    workers = room(_nodes(), cpus_per_worker(section), gpus_per_worker(section))
    return max(workers // section.most, section.trials if _more_may_come(section) else 1)


def _more_may_come(section: Cluster) -> bool:
    """Whether requested nodes may still be added: see `uses_gpu`."""
    return section.address is not None and uses_gpu(section)


def _nodes() -> list[dict[str, float]]:
    """The resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def fair_share(nodes: Sequence[Mapping[str, float]], workers: int, gpus: float) -> int:
    """The largest number of CPU cores per worker with which all workers fit on the nodes; 1 where none does."""
    most = int(max((node.get("CPU", 0) for node in nodes), default=1))
    return next((share for share in range(most, 1, -1) if room(nodes, share, gpus) >= workers), 1)


def room(nodes: Sequence[Mapping[str, float]], cpus: int, gpus: float) -> int:
    """The number of workers that fit on the nodes, each with `cpus` cores and `gpus` GPUs of one node."""

    def workers_on(node: Mapping[str, float]) -> int:
        by_cpu = node.get("CPU", 0) // cpus
        return int(min(by_cpu, node.get("GPU", 0) // gpus) if gpus else by_cpu)

    return sum(map(workers_on, nodes))
