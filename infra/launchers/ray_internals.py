"""Ray's private names, for which it has no public ones: its launcher's checks and nodes, and the token in use."""

from ray._private.authentication.authentication_token_generator import generate_new_authentication_token
from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader, Config
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

__all__ = [
    "LocalNodeProvider",
    "generate_new_authentication_token",
    "prepare_config",
    "reload_token",
    "validate_config",
]


def reload_token() -> None:
    """Let Ray read its authentication mode and token from the environment again: it remembers both."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
