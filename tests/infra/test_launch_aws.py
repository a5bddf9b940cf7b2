"""What is made for a cluster in an AWS account, and taken away again, against moto in this process."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra.launchers.aws import PER_BOOT, kms, leftovers, lifetime_script, roles
from infra.launchers.aws.client import Aws
from infra.launchers.policies import Account, storage_policy
from llm4seg.utils.errors import InputError

NUMBER = "123456789012"  # moto's
THEIRS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
OTHER = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": "*"}]}
HEAD = "mine-us-east-1-head"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with mock_aws():
        yield


def aws(region: str = "us-east-1", cluster: str = "mine") -> Aws:
    return Aws(boto3.Session(region_name=region), Account("aws", region, NUMBER), cluster)


def config() -> dict[str, Any]:
    """As little of a file as roles read."""
    node = {"InstanceType": "t3.micro", "ImageId": "ami-12c6146b", "SecurityGroupIds": ["sg-1"]}
    types = {name: {"node_config": dict(node)} for name in ("head", "gpu")}
    return {"head_node_type": "head", "available_node_types": types}


def made(where: Aws) -> dict[str, str]:
    """The profile of each node type."""
    filled = roles.with_profiles(where, config(), storage_policy(where.account, "data", "lab"))
    types = filled["available_node_types"].items()
    return {name: kind["node_config"]["IamInstanceProfile"]["Arn"].rpartition("/")[2] for name, kind in types}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "_wait_until_ec2_knows", lambda *_: None)


@pytest.mark.usefixtures("account", "known")
@pytest.mark.parametrize("kind", ["head", "worker"])
@pytest.mark.parametrize("tags", [[], [{"Key": leftovers.TAG, "Value": "theirs"}]])
def test_a_role_of_somebody_else_is_refused_and_stays_as_it_is(kind: str, tags: list[dict[str, str]]) -> None:
    iam, name = aws().iam, f"mine-us-east-1-{kind}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(OTHER), Tags=tags)
    iam.put_role_policy(RoleName=name, PolicyName="theirs", PolicyDocument=json.dumps(THEIRS))
    with pytest.raises(InputError, match=f"^IAM role {name}: found one without the tag ray-cluster-name=mine, "):
        made(aws())
    roles.remove(aws())
    assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == [name], "nothing else was made before"
    assert iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"] == OTHER
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == ["theirs"]


@pytest.mark.usefixtures("account", "known")
def test_an_instance_profile_of_somebody_else_is_refused_and_stays() -> None:
    iam = aws().iam
    iam.create_instance_profile(InstanceProfileName=HEAD)
    with pytest.raises(InputError, match=f"^IAM instance profile {HEAD}: found one without the tag"):
        made(aws())
    roles.remove(aws())
    assert iam.get_instance_profile(InstanceProfileName=HEAD)
    assert not iam.list_roles()["Roles"]


@pytest.mark.usefixtures("account", "known")
def test_clusters_of_one_name_in_two_regions_have_roles_of_their_own() -> None:
    here, there = made(aws()), made(aws("eu-west-1"))
    assert here == {"head": HEAD, "gpu": "mine-us-east-1-worker"}
    assert there == {"head": "mine-eu-west-1-head", "gpu": "mine-eu-west-1-worker"}
    assert made(aws()) == here, "its own are taken again"
    roles.remove(aws("eu-west-1"))
    left = {role["RoleName"] for role in aws().iam.list_roles()["Roles"]}
    assert left == set(here.values())
    scaling = aws().iam.get_role_policy(RoleName=HEAD, PolicyName="scaling")["PolicyDocument"]
    assert f"arn:aws:iam::{NUMBER}:role/mine-us-east-1-worker" in json.dumps(scaling)


@pytest.mark.usefixtures("account", "known")
def test_roles_go_without_their_profiles_too() -> None:
    iam = aws().iam
    made(aws())
    iam.remove_role_from_instance_profile(InstanceProfileName=HEAD, RoleName=HEAD)
    iam.delete_instance_profile(InstanceProfileName=HEAD)
    roles.remove(aws())
    assert not iam.list_roles()["Roles"]
    assert not iam.list_instance_profiles()["InstanceProfiles"]


def test_a_file_that_names_its_profiles_asks_nothing_of_iam() -> None:
    named = config()
    for kind in named["available_node_types"].values():
        kind["node_config"]["IamInstanceProfile"] = {"Arn": "arn"}
    roles.refuse_others(Aws(None, Account("aws", "us-east-1", NUMBER), "mine"), named)  # type: ignore[arg-type]


def test_the_longest_names_are_short_enough_for_iam() -> None:
    session = boto3.Session()
    regions = [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition_name=partition)
    ]
    assert max(len(roles.name("c" * 40, region, kind)) for region in regions for kind in roles.KINDS) <= 64


def bucket(**default: str) -> str:
    """The bucket `data`, in a region that is not the cluster's, encrypted like that."""
    s3 = boto3.client("s3", region_name="eu-west-1")
    s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    s3.put_bucket_encryption(Bucket="data", ServerSideEncryptionConfiguration=rules)
    return "data"


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("by", ["Arn", "KeyId"])
def test_the_buckets_key_is_found(by: str) -> None:
    made = boto3.client("kms", region_name="eu-west-1").create_key()["KeyMetadata"]
    assert kms.bucket_key(aws(), bucket(SSEAlgorithm="aws:kms", KMSMasterKeyID=made[by])) == made["Arn"]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("algorithm", ["AES256", "aws:kms"])
def test_keys_of_aws_itself_take_no_permission(algorithm: str) -> None:
    assert kms.bucket_key(aws(), bucket(SSEAlgorithm=algorithm)) is None


@pytest.mark.usefixtures("account")
def test_a_bucket_that_is_not_on_aws_has_no_key() -> None:
    assert kms.bucket_key(aws(), "elsewhere") is None


def test_who_may_not_ask_for_the_key_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Refusing:
        def client(self, service: str) -> Any:
            return self

        def get_bucket_encryption(self, **_: str) -> Any:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetBucketEncryption")

    refusing = Aws(Refusing(), Account("aws", "us-east-1", NUMBER), "mine")  # type: ignore[arg-type]
    assert kms.bucket_key(refusing, "data") is None
    assert "data is encrypted (s3:GetEncryptionConfiguration is not allowed)" in capsys.readouterr().err


@pytest.mark.usefixtures("account")
def test_requests_for_spot_nodes_end_where_no_node_is_left() -> None:
    ec2, found = aws().ec2, aws()
    marks = [{"ResourceType": "spot-instances-request", "Tags": [{"Key": leftovers.TAG, "Value": "mine"}]}]
    for tags in (marks, []):
        ec2.request_spot_instances(
            InstanceCount=1, LaunchSpecification={"ImageId": "ami-12c6146b"}, TagSpecifications=tags
        )
    assert [left.partition(" sir-")[0] for left in leftovers.billed(found)] == ["spot request"]
    leftovers.terminate(found)
    assert leftovers.billed(found) == []
    requests = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert [one["State"] for one in requests if not one.get("Tags")] in (["open"], ["active"]), "somebody else's"


def test_a_node_ends_in_time_and_at_a_second_boot(tmp_path: Path) -> None:
    """The user data runs at the first boot alone; what it leaves for every boot begins with the second."""
    tool, boots = tmp_path / "shutdown", tmp_path / "per-boot"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\n')
    tool.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    (tmp_path / "user-data").write_text(lifetime_script(90).replace(PER_BOOT, str(boots)))
    subprocess.run(["sh", "-e", tmp_path / "user-data"], env=path, check=True, timeout=30)
    assert (tmp_path / "log").read_text() == "-h +90\n"
    (script,) = boots.iterdir()
    subprocess.run([script], env=path, check=True, timeout=30)
    assert (tmp_path / "log").read_text() == "-h +90\n-h now\n"
