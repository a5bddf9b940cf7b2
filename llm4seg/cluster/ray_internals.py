"""Ray's private names, for which it has no public ones: the one place to look at when Ray is upgraded."""

import os
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import Config
from ray.train.v2._internal.constants import (
    CHECKPOINT_MANAGER_SNAPSHOT_FILENAME,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
)
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

__all__ = [
    "CHECKPOINT_MANAGER_SNAPSHOT_FILENAME",
    "HEALTH_CHECK_INTERVAL_S_ENV_VAR",
    "WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR",
    "WorkerHealthCheckTimeoutError",
    "check_same_storage",
    "node_is_draining",
    "require_token",
]


def check_same_storage(storage: Any) -> None:
    """Raise RuntimeError unless a worker's storage holds the marker that the run's controller left in its own."""
    storage._check_validation_file()


def require_token() -> None:
    """Let the cluster that this process starts ask for a token, as Ray does by itself, but with a warning about it."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # Ray has read its environment already


def node_is_draining() -> bool:
    """Whether the node of this process is about to be taken away, as Ray Train finds it out for its workers."""
    draining = ray._private.state.state.get_draining_nodes()
    return ray.get_runtime_context().get_node_id() in draining
