"""Ray's private names that have no public counterpart, in one place to check when Ray is upgraded."""

import os
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import (
    AuthenticationMode,
    AuthenticationTokenLoader,
    Config,
    get_authentication_mode,
)
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
    "lacks_token",
    "node_is_draining",
    "require_token",
]


def check_same_storage(storage: Any) -> None:
    """Raise RuntimeError unless a worker's storage holds the marker file that the run's controller wrote."""
    storage._check_validation_file()


def require_token() -> None:
    """Set token authentication for the cluster that this process starts: Ray's default, without its warning."""
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # Ray has read its environment already


def lacks_token() -> bool:
    """Whether token authentication is on and there is no token yet; a token that is made then is found."""
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    return get_authentication_mode() == AuthenticationMode.TOKEN and not loader.has_token(ignore_auth_mode=True)


def node_is_draining() -> bool:
    """Whether the node of this process is draining (about to be removed), as Ray Train checks it for its workers."""
    draining = ray._private.state.state.get_draining_nodes()
    return ray.get_runtime_context().get_node_id() in draining
