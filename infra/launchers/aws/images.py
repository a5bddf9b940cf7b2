"""Machine images: `resolve:ssm:NAME` in a cluster's file is the newest of a kind, looked up once a cluster."""

from infra.launchers.aws.client import Aws
from infra.launchers.cloud import Config, node_configs

PREFIX = "resolve:ssm:"


def with_image_ids(aws: Aws, config: Config, before: Config | None) -> Config:
    """With ids for names. A cluster that runs keeps the ids it began with, or else its head would be replaced."""
    known: dict[str, str] = ((before or {}).get("metadata") or {}).get("images", {})
    wanted = {node["ImageId"] for node in node_configs(config) if node["ImageId"].startswith(PREFIX)}
    ssm = aws.session.client("ssm")
    ids = {
        name: known.get(name) or ssm.get_parameter(Name=name.removeprefix(PREFIX))["Parameter"]["Value"]
        for name in sorted(wanted)
    }
    for node in node_configs(config):
        node["ImageId"] = ids.get(node["ImageId"], node["ImageId"])
    config["metadata"]["images"] = ids
    return config
