"""Checks of a file of Ray's cluster launcher before anything is started: Ray's rules, and ours for safety."""

import ipaddress
import json
import re
from pathlib import Path
from typing import Any, NoReturn

from infra.launchers.ray_internals import validate_cluster_config
from llm4seg.utils.errors import InputError

NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # names of roles, networks and labels begin with it
LOOPBACK = "--dashboard-host=127.0.0.1"
TOKEN_MODE = "RAY_AUTH_MODE=token"
SSH = 22
LONGEST_LIFE = 24 * 14  # hours


class Fields:
    """A cluster's file, or a part of it, field by field; an error names the file and the dotted field."""

    def __init__(self, path: Path, part: Any, above: tuple[str, ...] = ()) -> None:
        self.path, self.part, self.above = path, part, above

    def below(self, *names: str | int) -> "Fields":
        """A part of this part; null where it, or one above it, is missing."""
        part = self.part
        for name in names:
            if isinstance(part, list) and isinstance(name, int):
                part = part[name] if name < len(part) else None
            else:
                part = part.get(name) if isinstance(part, dict) else None
        return Fields(self.path, part, (*self.above, *(str(name) for name in names)))

    def get(self, dotted: str) -> Any:
        return self.below(*dotted.split(".")).part

    def require(self, dotted: str, allowed: Any, why: str = "") -> None:
        if (found := self.get(dotted)) is not allowed and (found != allowed or isinstance(allowed, bool)):
            self.refuse(dotted, found, _yaml(allowed) + (f" ({why})" if why else ""))

    def refuse(self, dotted: str, found: Any, allowed: str) -> NoReturn:
        name = ".".join([*self.above, dotted] if dotted else self.above)
        raise InputError(f"{self.path}: {name}: found {_yaml(found)}, allowed: {allowed}")


def provider_of(config: dict[str, Any]) -> str:
    """Where a cluster's nodes are found again: everything of its provider that another value would look past."""
    provider = config["provider"]
    return f"{provider['type']} {provider['region' if provider['type'] == 'aws' else 'head_ip']}"


def _yaml(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def check(path: Path, config: dict[str, Any]) -> None:
    """Raise InputError for what Ray would refuse or what would not be safe, naming the field."""
    fields = Fields(path, config)
    name = config.get("cluster_name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        fields.refuse("cluster_name", name, "up to 40 of a-z, 0-9 and -, beginning with a letter")
    if config["provider"]["type"] == "local":
        _check_machines(fields)
    elif not isinstance(config.get("available_node_types"), dict):
        fields.refuse("available_node_types", config.get("available_node_types"), "the kinds of nodes, by name")
    validate_cluster_config(config, path)
    _check_secrets(fields)
    _check_commands(fields)
    if config["provider"]["type"] == "aws":
        _check_lifetime(fields)
        _check_aws(fields)


def _check_machines(fields: Fields) -> None:
    """Without them Ray ends the program instead of raising something."""
    head, workers = fields.get("provider.head_ip"), fields.get("provider.worker_ips")
    if not isinstance(head, str):
        fields.refuse("provider.head_ip", head, "the head's address")
    if not isinstance(workers, list):
        fields.refuse("provider.worker_ips", workers, "a list of addresses; [] for a head alone")


def _check_secrets(fields: Fields) -> None:
    if fields.get("provider.aws_credentials") is not None:
        raise InputError(f"{fields.path}: provider.aws_credentials: credentials belong into no file; leave it out")


def _check_commands(fields: Fields) -> None:
    """Every `ray start` asks for the token, and the dashboard listens on the loopback."""
    for kind in ("head", "worker"):
        commands = fields.get(f"{kind}_start_ray_commands") or []
        starts = [number for number, command in enumerate(commands) if "ray start" in command]
        if not starts:
            fields.refuse(f"{kind}_start_ray_commands", commands, "a command with `ray start`")
        for dotted, command in ((f"{kind}_start_ray_commands.{number}", commands[number]) for number in starts):
            if TOKEN_MODE not in command:
                fields.refuse(dotted, command, f"`ray start` with {TOKEN_MODE}")
            if kind == "head" and LOOPBACK not in command.split():
                fields.refuse(dotted, command, f"`ray start` with {LOOPBACK}")


def _check_lifetime(fields: Fields) -> None:
    hours = fields.get("metadata.lifetime_hours")
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= LONGEST_LIFE:
        fields.refuse("metadata.lifetime_hours", hours, f"above 0 to {LONGEST_LIFE}: nodes end themselves after it")


def _check_aws(fields: Fields) -> None:
    region = fields.get("provider.region")
    if not isinstance(region, str):
        fields.refuse("provider.region", region, "one of AWS's, such as us-east-1")
    fields.require("provider.cache_stopped_nodes", False, why="stopped nodes still cost their disks")
    group = fields.below("provider", "security_group", "IpPermissions")
    for number, rule in enumerate(group.part or []):
        if is_open_to_the_world(rule):
            group.below(number).refuse("", rule, "no port open to everyone: `up` lets in one address")
    for name in fields.part["available_node_types"]:
        _check_ec2(fields.below("available_node_types", name, "node_config"))


def _check_ec2(node: Fields) -> None:
    node.require("MetadataOptions.HttpTokens", "required", why="IMDSv2")
    node.require("InstanceInitiatedShutdownBehavior", "terminate", why="so that nodes can end themselves")
    for field in ("InstanceType", "ImageId"):
        if not isinstance(node.get(field), str):
            node.refuse(field, node.get(field), f"an EC2 {field}")
    market = node.below("InstanceMarketOptions", "SpotOptions")
    if (found := market.get("SpotInstanceType")) not in (None, "one-time"):
        market.refuse("SpotInstanceType", found, "'one-time': EC2 would start the node anew whenever it ends")
    disks = node.below("BlockDeviceMappings")
    if not isinstance(disks.part, list) or not disks.part:
        disks.refuse("", disks.part, "the root disk, encrypted")
    for number in range(len(disks.part)):
        disks.below(number, "Ebs").require("Encrypted", True)
        disks.below(number, "Ebs").require("DeleteOnTermination", True, why="a disk that stays is billed")


def is_open_to_the_world(rule: dict[str, Any]) -> bool:
    """Whether a rule of a security group lets in every address."""
    ranges = [*(part.get("CidrIp") for part in rule.get("IpRanges", []))]
    ranges += [part.get("CidrIpv6") for part in rule.get("Ipv6Ranges", [])]
    return any(ipaddress.ip_network(cidr, strict=False).prefixlen == 0 for cidr in ranges if cidr)


def opens_ssh_to_everyone(rule: dict[str, Any]) -> bool:
    first, last = rule.get("FromPort", 0), rule.get("ToPort", 65535)
    return is_open_to_the_world(rule) and (rule.get("IpProtocol") == "-1" or first <= SSH <= last)


def ssh_range(text: str) -> str:
    """The addresses that may come by SSH, in CIDR notation. Raises InputError for none and for too many."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InputError(f"--ssh-from: found {text!r}, allowed: an address or a range such as 203.0.113.7/32") from None
    if network.prefixlen < network.max_prefixlen // 2:
        raise InputError(f"--ssh-from: found {text}, allowed: /{network.max_prefixlen // 2} or smaller: not the world")
    return str(network)
