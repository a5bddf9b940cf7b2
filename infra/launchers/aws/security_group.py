"""The cluster's security group: its members talk to each other, one address comes in by SSH, and nobody else.

Ray's launcher leaves the groups alone where every node type names its own; where one does not, Ray makes a group that
lets the whole world try port 22.
"""

import time
from typing import Any

from botocore.exceptions import ClientError

from infra.launchers.aws.client import Aws
from infra.launchers.aws.leftovers import TAG
from infra.launchers.checks import opens_ssh_to_everyone
from infra.launchers.cloud import Config, node_configs
from infra.storage.server import code
from llm4seg.utils.errors import InputError

TIMEOUT = 120  # seconds until AWS lets go of a group whose members have just ended


def name(cluster: str) -> str:
    return f"{cluster}-nodes"


def with_group(aws: Aws, config: Config, ssh_from: str) -> Config:
    """The configuration with a security group for every node type; groups that the file names are checked instead."""
    nodes = node_configs(config)
    ours = [node for node in nodes if not _named_groups(node)]
    if ours:
        group = _make(aws, _vpc(aws, ours), ssh_from)
        for node in ours:
            _set(node, group)
    _check_named(aws, sorted({group for node in nodes for group in _named_groups(node)}))
    return config


def _named_groups(node: dict[str, Any]) -> list[str]:
    interfaces = node.get("NetworkInterfaces", [])
    return [*node.get("SecurityGroupIds", []), *(group for part in interfaces for group in part.get("Groups", []))]


def _set(node: dict[str, Any], group: str) -> None:
    for interface in node.get("NetworkInterfaces", []):
        interface["Groups"] = [group]
    if "NetworkInterfaces" not in node:
        node["SecurityGroupIds"] = [group]


def _vpc(aws: Aws, nodes: list[dict[str, Any]]) -> str:
    """The VPC of the subnets that the file names, or else the default one. Raises InputError."""
    subnets = {subnet for node in nodes for subnet in node.get("SubnetIds", [])}
    subnets |= {part["SubnetId"] for node in nodes for part in node.get("NetworkInterfaces", []) if "SubnetId" in part}
    if subnets:
        found = {part["VpcId"] for part in aws.ec2.describe_subnets(SubnetIds=sorted(subnets))["Subnets"]}
    else:
        default = [{"Name": "is-default", "Values": ["true"]}]
        found = {vpc["VpcId"] for vpc in aws.ec2.describe_vpcs(Filters=default)["Vpcs"]}
    if len(found) != 1:
        what = f"subnets in {len(found)} VPCs" if subnets else "no default VPC"
        raise InputError(f"available_node_types: found {what}, allowed: SubnetIds of one VPC, or the default VPC")
    return str(found.pop())


def _ours(aws: Aws) -> list[dict[str, Any]]:
    wanted = {"group-name": name(aws.cluster), f"tag:{TAG}": aws.cluster}
    filters = [{"Name": key, "Values": [value]} for key, value in wanted.items()]
    groups: list[dict[str, Any]] = aws.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return groups


def _make(aws: Aws, vpc: str, ssh_from: str) -> str:
    """The group's id; made if need be, and its rules set to exactly what they are to be."""
    group = next((found for found in _ours(aws) if found["VpcId"] == vpc), None)
    if group is None:
        tags = [{"ResourceType": "security-group", "Tags": [{"Key": TAG, "Value": aws.cluster}]}]
        about = "SSH from one address, anything between members"
        made = aws.ec2.create_security_group(
            GroupName=name(aws.cluster), Description=about, VpcId=vpc, TagSpecifications=tags
        )
        group = {"GroupId": made["GroupId"], "IpPermissions": []}
    identity = str(group["GroupId"])
    wanted = [_among_members(identity), _ssh(ssh_from)]
    surplus = [rule for rule in group["IpPermissions"] if _normalized(rule) not in map(_normalized, wanted)]
    missing = [rule for rule in wanted if _normalized(rule) not in map(_normalized, group["IpPermissions"])]
    if surplus:
        aws.ec2.revoke_security_group_ingress(GroupId=identity, IpPermissions=surplus)
    if missing:
        aws.ec2.authorize_security_group_ingress(GroupId=identity, IpPermissions=missing)
    return identity


def _among_members(group: str) -> dict[str, Any]:
    return {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}


def _ssh(ssh_from: str) -> dict[str, Any]:
    if ":" in ssh_from:
        return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "Ipv6Ranges": [{"CidrIpv6": ssh_from}]}
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ssh_from}]}


def _normalized(rule: dict[str, Any]) -> tuple[Any, ...]:
    """A rule, as AWS reports it or as we request it, in one form."""
    ports = (None, None) if rule["IpProtocol"] == "-1" else (rule.get("FromPort"), rule.get("ToPort"))
    v4 = sorted(part["CidrIp"] for part in rule.get("IpRanges", []))
    v6 = sorted(part["CidrIpv6"] for part in rule.get("Ipv6Ranges", []))
    groups = sorted(part["GroupId"] for part in rule.get("UserIdGroupPairs", []))
    return rule["IpProtocol"], *ports, tuple(v4), tuple(v6), tuple(groups), bool(rule.get("PrefixListIds"))


def _check_named(aws: Aws, groups: list[str]) -> None:
    found = aws.ec2.describe_security_groups(GroupIds=groups)["SecurityGroups"] if groups else []
    for group in found:
        if any(opens_ssh_to_everyone(rule) for rule in group["IpPermissions"]):
            raise InputError(
                f"SecurityGroupIds: {group['GroupId']} lets the whole world try port 22; allowed: a group "
                "that does not, or none, and `up` makes one"
            )


def remove(aws: Aws) -> None:
    """Delete the group, once AWS has seen that its members are gone."""
    until = time.monotonic() + TIMEOUT
    for group in _ours(aws):
        while True:
            try:
                aws.ec2.delete_security_group(GroupId=group["GroupId"])
                break
            except ClientError as error:
                if code(error) != "DependencyViolation" or time.monotonic() > until:
                    raise
                time.sleep(5)
