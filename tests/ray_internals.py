"""Ray's private names that tests need: the token in use, the dashboard's address, its providers of cloud nodes."""

import ray
from ray._private.authentication_test_utils import reset_auth_token_state
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

__all__ = [
    "AWSNodeProvider",
    "bootstrap_aws",
    "dashboard",
    "prepare_config",
    "reset_auth_token_state",
    "validate_config",
]


def dashboard() -> str:
    """Host and port of the connected session's dashboard."""
    return str(ray._private.worker.global_worker.node.webui_url)
