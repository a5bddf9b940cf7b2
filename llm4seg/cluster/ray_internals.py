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
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.constants import (
    CHECKPOINT_MANAGER_SNAPSHOT_FILENAME,
    ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
)
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

__all__ = [
    "CHECKPOINT_MANAGER_SNAPSHOT_FILENAME",
    "HEALTH_CHECK_INTERVAL_S_ENV_VAR",
    "WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR",
    "LeanTrainer",
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


class LeanTrainer(TorchTrainer):
    """A TorchTrainer without actors that do nothing here, each a process that imports Ray Train for seconds.

    There is none for Ray's datasets. On `own_ray`, whose only node is this machine, there is also none that requests
    nodes of an autoscaler, and none that watches for nodes about to be removed.
    """

    def __init__(self, *arguments: Any, own_ray: bool, **named: Any) -> None:
        self._own_ray = own_ray
        super().__init__(*arguments, **named)

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, DatasetsCallback)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if not self._own_ray:
            return super()._initialize_and_run_controller(**parts)
        if type(parts["scaling_policy"]) is FixedScalingPolicy:
            parts["scaling_policy"] = OneMachinePolicy(self.scaling_config)
        before = os.environ.get(ENABLE_PREEMPTION_WATCHER_ENV_VAR)
        os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR] = "0"  # the controller's process gets it
        try:
            return super()._initialize_and_run_controller(**parts)
        finally:
            del os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR]
            if before is not None:
                os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR] = before


class OneMachinePolicy(FixedScalingPolicy):
    """A fixed number of workers, which no autoscaler is asked to make room for."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass
