"""What a cluster's nodes may do on AWS, and what they may not."""

import json

import pytest

from infra.launchers.policies import FOLDER, Account, policy, scaling_policy, storage_policy
from tests.policy import allows, wildcards

ACCOUNT = Account("aws", "us-east-1", "123456789012")
EC2 = "arn:aws:ec2:us-east-1:123456789012"
ROLE = "arn:aws:iam::123456789012:role/mine-worker"
PROFILE = "arn:aws:iam::123456789012:instance-profile/mine-worker"
WORKER = [storage_policy(ACCOUNT, "bucket", "team/project")]
HEAD = [*WORKER, scaling_policy(ACCOUNT, "mine", ["g6.xlarge"], ["sg-1"], ROLE, PROFILE)]
LAUNCH = {
    "aws__RequestTag/ray_cluster_name": "mine",
    "ec2__InstanceType": "g6.xlarge",
    "ec2__MetadataHttpTokens": "required",
    "ec2__InstanceProfile": PROFILE,
}


KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
ENCRYPTED = [storage_policy(ACCOUNT, "bucket", "team/project", KEY)]


@pytest.mark.parametrize("document", [*HEAD, *ENCRYPTED, policy("trust", {})])
def test_nothing_may_do_anything_to_anything(document: dict) -> None:
    assert not wildcards(document)
    assert "${" not in json.dumps(document)


def test_only_reading_what_there_is_takes_any_resource() -> None:
    anything = [part for document in HEAD for part in document["Statement"] if part["Resource"] == "*"]
    assert [action for part in anything for action in part["Action"]] == [
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceStatus",
    ]


def test_every_document_is_used() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == {"trust", "storage", "scaling", "owner"}


def test_only_instances_assume_the_roles() -> None:
    assert [part["Principal"] for part in policy("trust", {})["Statement"]] == [{"Service": "ec2.amazonaws.com"}]


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"])
def test_nodes_read_and_write_the_prefix_alone(action: str) -> None:
    assert allows(WORKER, action, "arn:aws:s3:::bucket/team/project/dvc/files/md5/00/1")
    assert allows(WORKER, action, "arn:aws:s3:::bucket/team/project/")
    for elsewhere in ("bucket/team/project2/x", "bucket/team/x", "bucket/x", "other/team/project/x"):
        assert not allows(WORKER, action, f"arn:aws:s3:::{elsewhere}"), elsewhere


def test_arrow_may_mark_the_folders_above_the_prefix() -> None:
    assert allows(WORKER, "s3:PutObject", "arn:aws:s3:::bucket/team/")
    assert not allows(WORKER, "s3:GetObject", "arn:aws:s3:::bucket/team/")
    assert len(storage_policy(ACCOUNT, "bucket", "project")["Statement"]) == len(WORKER[0]["Statement"]) - 1


def test_nodes_list_the_prefix_alone() -> None:
    bucket = "arn:aws:s3:::bucket"
    assert allows(WORKER, "s3:ListBucket", bucket, s3__prefix="team/project/runs/")
    assert not allows(WORKER, "s3:ListBucket", bucket, s3__prefix="team/")
    assert not allows(WORKER, "s3:ListBucket", bucket, s3__prefix="")
    assert not allows(WORKER, "s3:ListBucket", "arn:aws:s3:::other", s3__prefix="team/project/runs/")
    assert allows(WORKER, "s3:ListBucket", bucket), "a look whether the bucket is there has no prefix"


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:GenerateDataKey"])
def test_nodes_use_the_buckets_key_through_s3_alone(action: str) -> None:
    through_s3 = {"kms__ViaService": "s3.eu-west-1.amazonaws.com"}
    assert allows(ENCRYPTED, action, KEY, **through_s3)
    assert not allows(ENCRYPTED, action, KEY.replace("key/1", "key/2"), **through_s3)
    assert not allows(ENCRYPTED, action, KEY, kms__ViaService="ec2.eu-west-1.amazonaws.com")
    assert not allows(ENCRYPTED, action, KEY)
    assert not allows(ENCRYPTED, "kms:ScheduleKeyDeletion", KEY, **through_s3)
    assert not allows(HEAD, action, KEY, **through_s3), "this bucket has no key of its own"


@pytest.mark.parametrize("action", ["s3:PutBucketPolicy", "s3:DeleteBucket", "s3:PutLifecycleConfiguration"])
def test_nodes_leave_the_bucket_as_it_is(action: str) -> None:
    assert not allows(HEAD, action, "arn:aws:s3:::bucket")


def test_workers_do_nothing_on_ec2() -> None:
    for action in ("ec2:RunInstances", "ec2:TerminateInstances", "ec2:DescribeInstances", "iam:PassRole"):
        assert not allows(WORKER, action, f"{EC2}:instance/i-1", **LAUNCH)


def test_the_head_starts_workers_as_the_file_says() -> None:
    assert allows(HEAD, "ec2:RunInstances", f"{EC2}:instance/*", **LAUNCH)
    assert allows(HEAD, "ec2:RunInstances", f"{EC2}:volume/*", ec2__Encrypted="true")
    for resource in ("image/ami-1", "snapshot/snap-1"):
        assert allows(HEAD, "ec2:RunInstances", f"arn:aws:ec2:us-east-1::{resource}")
    for resource in (
        "subnet/s",
        "security-group/sg-1",
        "key-pair/k",
        "network-interface/*",
        "spot-instances-request/*",
    ):
        assert allows(HEAD, "ec2:RunInstances", f"{EC2}:{resource}"), resource


@pytest.mark.parametrize(
    "other",
    [
        {"aws__RequestTag/ray_cluster_name": "theirs"},
        {"ec2__InstanceType": "p5.48xlarge"},
        {"ec2__MetadataHttpTokens": "optional"},
        {"ec2__InstanceProfile": PROFILE.replace("mine-worker", "admin")},
    ],
)
def test_the_head_starts_nothing_else(other: dict[str, str]) -> None:
    assert not allows(HEAD, "ec2:RunInstances", f"{EC2}:instance/*", **{**LAUNCH, **other})


def test_the_head_starts_nothing_on_bare_disks_in_other_groups_or_elsewhere() -> None:
    assert not allows(HEAD, "ec2:RunInstances", f"{EC2}:volume/*", ec2__Encrypted="false")
    assert not allows(HEAD, "ec2:RunInstances", f"{EC2}:security-group/sg-2")
    assert not allows(HEAD, "ec2:RunInstances", f"{EC2}:instance/*".replace("us-east-1", "eu-west-1"), **LAUNCH)


def test_the_head_ends_and_tags_its_own_nodes_alone() -> None:
    mine = {"aws__ResourceTag/ray_cluster_name": "mine"}
    theirs = {"aws__ResourceTag/ray_cluster_name": "theirs"}
    node, status = f"{EC2}:instance/i-1", {"aws__TagKeys": ["ray-node-status", "ray-runtime-config"]}
    assert allows(HEAD, "ec2:TerminateInstances", node, **mine)
    assert not allows(HEAD, "ec2:TerminateInstances", node, **theirs)
    assert not allows(HEAD, "ec2:TerminateInstances", node)
    assert allows(HEAD, "ec2:CreateTags", node, **mine, **status)
    assert not allows(HEAD, "ec2:CreateTags", node, **theirs, **status)
    assert not allows(HEAD, "ec2:CreateTags", node, **theirs, aws__TagKeys=["ray-cluster-name"])
    assert not allows(HEAD, "ec2:CreateTags", node, **mine, aws__TagKeys=["ray-cluster-name"])


def test_the_head_cannot_make_others_nodes_its_own() -> None:
    """Whoever may tag anything may end anything."""
    mine = {"aws__RequestTag/ray_cluster_name": "mine"}
    for kind in ("instance", "volume", "spot-instances-request"):
        started = f"{EC2}:{kind}/x"
        assert allows(HEAD, "ec2:CreateTags", started, **mine, ec2__CreateAction="RunInstances")
        assert not allows(HEAD, "ec2:CreateTags", started, **mine, aws__TagKeys=["ray-cluster-name"])
        theirs = {"aws__RequestTag/ray_cluster_name": "theirs"}
        assert not allows(HEAD, "ec2:CreateTags", started, **theirs, ec2__CreateAction="RunInstances")


def test_the_head_sees_its_own_region_alone() -> None:
    for region, seen in (("us-east-1", True), ("eu-west-1", False)):
        assert allows(HEAD, "ec2:DescribeInstances", "*", aws__RequestedRegion=region) is seen


def test_the_head_hands_on_the_workers_role_alone() -> None:
    to_ec2 = {"iam__PassedToService": "ec2.amazonaws.com"}
    assert allows(HEAD, "iam:PassRole", ROLE, **to_ec2)
    assert not allows(HEAD, "iam:PassRole", ROLE.replace("worker", "head"), **to_ec2)
    assert not allows(HEAD, "iam:PassRole", ROLE, iam__PassedToService="lambda.amazonaws.com")
    for action in ("iam:CreateRole", "iam:PutRolePolicy", "sts:AssumeRole"):
        assert not allows(HEAD, action, ROLE, **to_ec2)
