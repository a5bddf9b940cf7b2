"""What a cluster still has in the account that costs money, found by its tag; how it is terminated."""

from typing import Any

from infra.launchers.aws.client import Aws
from infra.launchers.cloud import Node

TAG = "ray-cluster-name"  # Ray's own
KIND, TYPE, STATUS = "ray-node-type", "ray-user-node-type", "ray-node-status"
ALIVE = ("pending", "running", "stopping", "stopped", "shutting-down")


def _tagged(aws: Aws, **also: list[str]) -> list[dict[str, Any]]:
    filters = {f"tag:{TAG}": [aws.cluster], **{key.replace("_", "-"): values for key, values in also.items()}}
    return [{"Name": name, "Values": values} for name, values in filters.items()]


def _instances(aws: Aws) -> list[dict[str, Any]]:
    pages = aws.ec2.get_paginator("describe_instances").paginate(Filters=_tagged(aws, instance_state_name=[*ALIVE]))
    return [found for page in pages for part in page["Reservations"] for found in part["Instances"]]


def _spot_requests(aws: Aws) -> list[str]:
    """Those that may still start a node, or have one: EC2 tags them as whoever asks for the node says."""
    by_tag = aws.ec2.describe_spot_instance_requests(Filters=_tagged(aws, state=["open", "active"]))
    return [found["SpotInstanceRequestId"] for found in by_tag["SpotInstanceRequests"]]


def nodes(aws: Aws) -> list[Node]:
    """All of them that have not ended, the head first."""
    found = [_node(instance) for instance in _instances(aws)]
    return sorted(found, key=lambda node: (node.kind != "head", node.started or 0))


def _node(instance: dict[str, Any]) -> Node:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    market = instance.get("InstanceLifecycle", "on demand")
    state = f"{instance['State']['Name']}, {tags.get(STATUS, 'not set up')}"
    return Node(
        name=instance["InstanceId"],
        kind=tags.get(KIND, "?"),
        node_type=f"{tags.get(TYPE, '?')} ({instance['InstanceType']})",
        market=market,
        state=state,
        started=instance["LaunchTime"].timestamp(),
        address=instance.get("PublicIpAddress") or instance.get("PrivateIpAddress") or "",
    )


def terminate(aws: Aws) -> None:
    """End whatever runs, the head first, which would start others; return when EC2 says that all have ended."""
    while instances := _instances_without_requests(aws):
        heads = [node.name for node in nodes(aws) if node.kind == "head"]
        ending = heads or instances
        aws.ec2.terminate_instances(InstanceIds=ending)
        aws.ec2.get_waiter("instance_terminated").wait(InstanceIds=ending)


def _instances_without_requests(aws: Aws) -> list[str]:
    """What runs, seen after no request is left that could start another."""
    if requests := _spot_requests(aws):
        aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=requests)
    return [found["InstanceId"] for found in _instances(aws)]


def billed(aws: Aws) -> list[str]:
    """Everything with the cluster's tag that is billed: nodes, requests for some, disks, addresses."""
    volumes = aws.ec2.describe_volumes(Filters=_tagged(aws))["Volumes"]
    addresses = aws.ec2.describe_addresses(Filters=_tagged(aws))["Addresses"]
    return [
        *(f"instance {found['InstanceId']} ({found['State']['Name']})" for found in _instances(aws)),
        *(f"spot request {found}" for found in _spot_requests(aws)),
        *(f"volume {found['VolumeId']} ({found['Size']} GB)" for found in volumes if found["State"] != "deleting"),
        *(f"address {found['PublicIp']}" for found in addresses),
    ]
