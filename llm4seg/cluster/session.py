"""A connection to Ray: this machine as a cluster of its own, or one that is running already."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llm4seg
from llm4seg.errors import InputError
from llm4seg.sections import Cluster

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about medical work leaves the machine unasked
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's old output can be switched off, which `verbose=0` does
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's own makes Ctrl-C look like a finished search

HERE: dict[str, Any] = {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
CLUSTER: dict[str, Any] = {
    "runtime_env": {"py_modules": [str(Path(llm4seg.__file__).parent)]}
}  # the nodes run this code, not theirs


@contextmanager
def ray_session(section: Cluster) -> Iterator[None]:
    """Connect to `cluster.address`, or start Ray here and end it afterwards, however the block ends."""
    import ray

    from llm4seg.cluster.storage import sweep

    try:
        ray.init(
            address=section.address or "local",
            # without its state API, Ray leaks the workers of stopped trials
            **(HERE if section.address is None else CLUSTER),
            log_to_driver=False,
            logging_level="WARNING",
        )
    except ConnectionError as error:
        raise InputError(f"cluster.address: found {section.address!r}, where no Ray cluster answers: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()
        sweep()


def uses_gpu(section: Cluster) -> bool:
    """Whether workers train on GPUs: as told, or when the cluster has one for each of the fewest."""
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    needed = section.fewest * section.gpus_per_worker
    if section.device == "cuda" and gpus < needed:
        raise InputError(
            f"cluster.device: found cuda, but the cluster has {gpus:g} GPUs for cluster.workers = {section.fewest}"
        )
    return section.device != "cpu" and gpus >= needed


def cpus_per_worker(section: Cluster) -> int:
    """CPU cores that each worker asks for: as told, or the cluster's, shared out."""
    import ray

    cores = int(ray.cluster_resources().get("CPU", 1))
    share = section.cpus_per_worker or max(1, cores // section.most)
    if share * section.fewest > cores:
        raise InputError(
            f"cluster.workers: found {section.fewest} x {share} CPU cores, allowed: the cluster's {cores} in all"
        )
    return share
