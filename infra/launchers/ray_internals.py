"""Private names of Ray, of its cluster launcher and its token authentication: the place to look at upgrades."""

import contextlib
import io
from typing import Any

from llm4seg.utils.errors import InputError


def validate_cluster_config(config: dict[str, Any], path: object) -> None:
    """Ray's own validation of a cluster's file, which `ray up` does with a traceback. Raises InputError."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            validate_config(prepare_config(config))  # it prints something on every mounted file
    except Exception as error:  # whatever Ray stumbles over, it is the file
        dotted = ".".join(str(part) for part in getattr(error, "absolute_path", []))  # of its schema
        reason = getattr(error, "message", None) or str(error) or type(error).__name__
        raise InputError(f"{path}: {dotted + ': ' if dotted else ''}{reason}") from None


def local_nodes(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The tags of each running machine of a cluster with provider `local`, by its address."""
    from ray.autoscaler._private.local.node_provider import LocalNodeProvider

    provider = LocalNodeProvider(config["provider"], config["cluster_name"])
    return {name: provider.node_tags(name) for name in provider.non_terminated_nodes({})}


def new_token() -> str:
    """A random token, as `ray get-auth-token --generate` writes it."""
    from ray._private.authentication.authentication_token_generator import generate_new_authentication_token

    return str(generate_new_authentication_token())


def reload_authentication() -> None:
    """Let Ray in this process read RAY_AUTH_MODE and the token again; it keeps both otherwise."""
    from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
