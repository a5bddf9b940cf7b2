"""Roles and instance profiles for the head and the workers, with exactly what infra/policies allows them.

IAM knows no regions, so the names have the cluster's; a role or profile is the cluster's own if it has its tag.
"""

import json
from collections.abc import Callable
from typing import Any

import tenacity
from botocore.exceptions import ClientError

from infra.launchers.aws.client import Aws
from infra.launchers.aws.leftovers import TAG
from infra.launchers.cloud import Config, head_config, node_configs, worker_configs
from infra.launchers.policies import policy, scaling_policy
from infra.storage.server import code
from llm4seg.utils.errors import InputError

KINDS = ("head", "worker")
SPOT = "spot.amazonaws.com"
SPOT_ROLE = "AWSServiceRoleForEC2Spot"
PROPAGATION_TIMEOUT = 60  # seconds, at most, until EC2 knows a profile that IAM has just made


def name(cluster: str, region: str, kind: str) -> str:
    """Of a role and its profile: at most 62 characters, of the 64 that IAM takes."""
    return f"{cluster}-{region}-{kind}"


def _name(aws: Aws, kind: str) -> str:
    return name(aws.cluster, aws.account.region, kind)


def refuse_others(aws: Aws, config: Config) -> None:
    """Raise InputError if a role or profile that `with_profiles` would take is there and is not this cluster's."""
    if all("IamInstanceProfile" in node for node in node_configs(config)):
        return
    for role in (_name(aws, kind) for kind in KINDS):
        for what, found in (("role", _role(aws, role)), ("instance profile", _profile(aws, role))):
            if found and not _is_ours(aws, found):
                raise InputError(
                    f"IAM {what} {role}: found one without the tag {TAG}={aws.cluster}, allowed: none, or this "
                    "cluster's own; choose another cluster_name"
                )


def _role(aws: Aws, name: str) -> dict[str, Any] | None:
    return _if_there(lambda: aws.iam.get_role(RoleName=name)["Role"])


def _profile(aws: Aws, name: str) -> dict[str, Any] | None:
    return _if_there(lambda: aws.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"])


def _if_there(read: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return read()
    except ClientError as error:
        if code(error) != "NoSuchEntity":
            raise
        return None


def _is_ours(aws: Aws, found: dict[str, Any]) -> bool:
    return {"Key": TAG, "Value": aws.cluster} in found.get("Tags", [])


def with_profiles(aws: Aws, config: Config, storage: dict[str, Any]) -> Config:
    """The configuration with an instance profile for every node type that names none; made, if need be.

    `storage`: the policy by which nodes reach their data.
    """
    refuse_others(aws, config)
    _ensure_spot_role(aws, config)
    workers = [node for node in worker_configs(config) if "IamInstanceProfile" not in node]
    head = [node for node in [head_config(config)] if "IamInstanceProfile" not in node]
    if workers or head:
        worker_profile = _ensure_profile(aws, _name(aws, "worker"), {"storage": storage})
        for node in workers:
            node["IamInstanceProfile"] = {"Arn": worker_profile}
    if head:
        scaling = _scaling(aws, config, worker_profile)
        head[0]["IamInstanceProfile"] = {
            "Arn": _ensure_profile(aws, _name(aws, "head"), {"storage": storage, "scaling": scaling})
        }
    for node in [*workers, *head]:
        _wait_until_ec2_knows(aws, node)
    return config


def _scaling(aws: Aws, config: Config, profile: str) -> dict[str, Any]:
    nodes = worker_configs(config)
    types = sorted({node["InstanceType"] for node in nodes})
    interfaces = [part for node in nodes for part in node.get("NetworkInterfaces", [])]
    groups = {group for node in nodes for group in node.get("SecurityGroupIds", [])}
    groups |= {group for part in interfaces for group in part.get("Groups", [])}
    role = aws.account.arn("iam", f"role/{_name(aws, 'worker')}")
    return scaling_policy(aws.account, aws.cluster, types, sorted(groups), role, profile)


def _ensure_profile(aws: Aws, name: str, policies: dict[str, dict[str, Any]]) -> str:
    """The ARN of the instance profile of that name, with a role of that name that has these policies and no others."""
    tags = [{"Key": TAG, "Value": aws.cluster}]
    trust = json.dumps(policy("trust", {}))
    if _role(aws, name) is None:
        aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=tags)
    aws.iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
    for title, document in policies.items():
        aws.iam.put_role_policy(RoleName=name, PolicyName=title, PolicyDocument=json.dumps(document))
    _delete_policies(aws, name, keep=set(policies))
    profile = _profile(aws, name)
    if profile is None:
        profile = aws.iam.create_instance_profile(InstanceProfileName=name, Tags=tags)["InstanceProfile"]
    if not profile["Roles"]:
        aws.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return str(profile["Arn"])


def _delete_policies(aws: Aws, role: str, keep: set[str]) -> None:
    """Delete the policies that others gave to the role."""
    for name in set(aws.iam.list_role_policies(RoleName=role)["PolicyNames"]) - keep:
        aws.iam.delete_role_policy(RoleName=role, PolicyName=name)
    for found in aws.iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        aws.iam.detach_role_policy(RoleName=role, PolicyArn=found["PolicyArn"])


def _ensure_spot_role(aws: Aws, config: Config) -> None:
    """An account's first spot instance needs a role of AWS's own, which the head may not make."""
    if not any(node.get("InstanceMarketOptions") for node in worker_configs(config)) or _role(aws, SPOT_ROLE):
        return
    try:
        aws.iam.create_service_linked_role(AWSServiceName=SPOT)
    except ClientError as error:
        if code(error) != "EntityAlreadyExists" and "has been taken" not in str(error):  # somebody has just made it
            raise


def _wait_until_ec2_knows(aws: Aws, node: dict[str, Any]) -> None:
    """Request dry runs of EC2 until it no longer answers that there is no such profile."""
    fields = ("ImageId", "InstanceType", "IamInstanceProfile", "SecurityGroupIds", "NetworkInterfaces")
    request = {key: node[key] for key in fields if key in node}
    if "SubnetIds" in node:
        request["SubnetId"] = node["SubnetIds"][0]

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, ClientError) and _is_propagating(error)),
        wait=tenacity.wait_fixed(3),
        stop=tenacity.stop_after_delay(PROPAGATION_TIMEOUT),
        reraise=True,
    )
    def dry_run() -> None:
        try:
            aws.ec2.run_instances(**request, MinCount=1, MaxCount=1, DryRun=True)
        except ClientError as error:
            if code(error) != "DryRunOperation":
                raise

    dry_run()


def _is_propagating(error: ClientError) -> bool:
    return "iaminstanceprofile" in str(error).lower().replace(" ", "")


def remove(aws: Aws) -> None:
    """Delete this cluster's roles and profiles. They cost nothing, so `down` leaves them unless `--forget` is given."""
    for name in (_name(aws, kind) for kind in KINDS):
        profile, role = _profile(aws, name), _role(aws, name)
        if profile and _is_ours(aws, profile):
            for held in profile["Roles"]:
                aws.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=held["RoleName"])
            aws.iam.delete_instance_profile(InstanceProfileName=name)
        if role and _is_ours(aws, role):
            _delete_policies(aws, name, keep=set())
            aws.iam.delete_role(RoleName=name)
