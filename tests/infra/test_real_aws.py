"""A cluster on AWS, against a server like it: what Ray's own launcher makes of our file, and what `down` leaves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from infra.launchers.aws import lifetime_script
from tests.import_graph import ROOT
from tests.policy import allows
from tests.servers import KEYS, free_port, wait_for

IMAGE = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"  # of those the server knows
HERE = "198.51.100.7"
NAME = "llm4seg"
ROLE = f"{NAME}-us-east-1"


@dataclass
class Laptop:
    """A user's checkout and home, and an AWS account that no cluster has been in yet."""

    folder: Path
    environment: dict[str, str]

    def infra(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "infra", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name="us-east-1", endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    @property
    def rendered(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((self.folder / ".infra" / NAME / "cluster.yaml").read_text())
        return found

    def instances(self, *states: str) -> list[dict[str, Any]]:
        filters = [{"Name": "instance-state-name", "Values": list(states or ("pending", "running"))}]
        pages = self.client("ec2").describe_instances(Filters=filters)["Reservations"]
        return [found for page in pages for found in page["Instances"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto, with AWS's managed policies."""
    port, log = free_port(), tmp_path_factory.mktemp("moto") / "log"
    environment = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(scope="module")
def laptop(server: str, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """ssh and rsync succeed without doing anything: the nodes of the stand-in are no machines."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "infra", folder / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.lock", folder)
    file = folder / "infra" / "aws.yaml"
    text = "\n".join(
        line.partition("resolve:")[0] + IMAGE if "ImageId: resolve" in line else line
        for line in file.read_text().splitlines()
    )
    file.write_text(text)
    (folder / ".dvc").mkdir()
    remote = "[core]\n    remote = storage\n    no_scm = True\n['remote \"storage\"']\n    url = s3://data/team/project/dvc\n"
    (folder / ".dvc" / "config").write_text(remote)
    tools = folder / "tools"
    tools.mkdir()
    for name in ("ssh", "rsync"):
        (tools / name).write_text(f'#!/bin/sh\necho "$@" >> {folder}/{name}.log\n')
        (tools / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
    environment |= {**KEYS, "AWS_ENDPOINT_URL": server, "HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    environment |= {"PATH": f"{tools}:{os.environ['PATH']}", "COLUMNS": "200", "NO_PROXY": "127.0.0.1"}
    (folder / "home").mkdir()
    for key, value in KEYS.items():
        os.environ.setdefault(key, value)
    return Laptop(folder, environment)


@pytest.fixture(scope="module")
def output(laptop: Laptop) -> str:
    """What `up` says, the first time."""
    return laptop.infra("up", "infra/aws.yaml", "--ssh-from", HERE)


@pytest.fixture(scope="module")
def workers(laptop: Laptop, output: str) -> list[dict[str, Any]]:
    """One worker of each type, started by Ray's provider with what the head has in its file."""
    script = """
import sys, yaml
from tests.ray_internals import prepare_config, validate_config, AWSNodeProvider, bootstrap_aws
config = prepare_config(yaml.safe_load(open(sys.argv[1])))
validate_config(config)
config = bootstrap_aws(config)
provider = AWSNodeProvider(config["provider"], config["cluster_name"])
for name in ("gpu-spot", "gpu-on-demand"):
    tags = {"ray-node-type": "worker", "ray-user-node-type": name, "ray-node-name": f"ray-{name}"}
    tags["ray-node-status"] = "up-to-date"
    provider.create_node(config["available_node_types"][name]["node_config"], tags, 1)
"""
    command = [sys.executable, "-c", script, f".infra/{NAME}/cluster.yaml"]
    subprocess.run(command, cwd=laptop.folder, env=laptop.environment, check=True, timeout=120)
    return [found for found in laptop.instances() if found["InstanceType"] == "g6.xlarge"]


def tags(found: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", found.get("TagSet", []))}


def test_a_dry_run_needs_no_account(laptop: Laptop) -> None:
    without = Laptop(laptop.folder, {**laptop.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    printed = without.infra("up", "infra/aws.yaml", "--dry-run")
    assert "SSH from your address alone" in printed
    assert f"ray up --yes .infra/{NAME}/cluster.yaml" in printed
    assert not (laptop.folder / ".infra").exists()
    assert f"ray down --yes .infra/{NAME}/cluster.yaml" in without.infra("down", "infra/aws.yaml", "--dry-run")


def test_up_starts_a_head_on_demand(laptop: Laptop, output: str) -> None:
    (head,) = [found for found in laptop.instances() if tags(found)["ray-node-type"] == "head"]
    assert head["InstanceType"] == "m7i.xlarge"
    assert "InstanceLifecycle" not in head
    assert tags(head)["ray-cluster-name"] == NAME
    assert tags(head)["ray-node-status"] == "up-to-date"


def test_workers_are_spot_and_on_demand(workers: list[dict[str, Any]]) -> None:
    markets = {tags(found)["ray-user-node-type"]: found.get("InstanceLifecycle") for found in workers}
    assert markets == {"gpu-spot": "spot", "gpu-on-demand": None}


def test_every_node_is_as_safe_as_the_file_says(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    ec2 = laptop.client("ec2")
    for node in laptop.instances():
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        asked = {"InstanceId": node["InstanceId"], "Attribute": "instanceInitiatedShutdownBehavior"}
        assert ec2.describe_instance_attribute(**asked)["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
        asked["Attribute"] = "userData"
        assert ec2.describe_instance_attribute(**asked)["UserData"]["Value"]
    types = laptop.rendered["available_node_types"].values()
    assert all(node["node_config"]["UserData"] == lifetime_script(1440) for node in types)


def test_every_disk_is_encrypted_and_tagged(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    disks = laptop.client("ec2").describe_volumes()["Volumes"]
    assert len(disks) == 3
    assert all(disk["Encrypted"] and disk["Size"] == 100 and disk["VolumeType"] == "gp3" for disk in disks)
    assert all(tags(disk)["ray-cluster-name"] == NAME for disk in disks)


def test_only_this_laptop_and_members_get_in(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    groups = {group["GroupId"] for node in laptop.instances() for group in node["SecurityGroups"]}
    (found,) = laptop.client("ec2").describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]
    rules = [
        (
            rule["IpProtocol"],
            rule.get("FromPort"),
            [part["CidrIp"] for part in rule["IpRanges"]],
            [part["GroupId"] for part in rule["UserIdGroupPairs"]],
        )
        for rule in sorted(found["IpPermissions"], key=lambda rule: rule["IpProtocol"])
    ]
    assert rules == [("-1", None, [], [found["GroupId"]]), ("tcp", 22, [f"{HERE}/32"], [])]
    everything = laptop.client("ec2").describe_security_groups()["SecurityGroups"]
    assert not [group for group in everything if "ray-autoscaler" in group["GroupName"]], "Ray made one of its own"


def test_head_and_workers_have_roles_of_their_own(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    profiles = {node["InstanceType"]: node["IamInstanceProfile"]["Arn"] for node in laptop.instances()}
    assert {kind: arn.rpartition("/")[2] for kind, arn in profiles.items()} == {
        "m7i.xlarge": f"{ROLE}-head",
        "g6.xlarge": f"{ROLE}-worker",
    }
    iam = laptop.client("iam")
    found = {}
    for kind in ("head", "worker"):
        names = iam.list_role_policies(RoleName=f"{ROLE}-{kind}")["PolicyNames"]
        found[kind] = [iam.get_role_policy(RoleName=f"{ROLE}-{kind}", PolicyName=n)["PolicyDocument"] for n in names]
        assert not iam.list_attached_role_policies(RoleName=f"{ROLE}-{kind}")["AttachedPolicies"]
    assert [len(found[kind]) for kind in ("head", "worker")] == [2, 1]
    for kind in found:
        assert allows(found[kind], "s3:GetObject", "arn:aws:s3:::data/team/project/dvc/x")
        assert not allows(found[kind], "s3:GetObject", "arn:aws:s3:::data/team/other/x")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="ray-autoscaler-v1")  # Ray's own, with full access


def test_the_head_may_do_what_it_does(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    """The calls that started the workers, against the policy of the role that will make them."""
    iam = laptop.client("iam")
    document = iam.get_role_policy(RoleName=f"{ROLE}-head", PolicyName="scaling")["PolicyDocument"]
    account = iam.get_role(RoleName=f"{ROLE}-head")["Role"]["Arn"].split(":")[4]
    for node in workers:
        (group,) = node["SecurityGroups"]
        request = {
            "aws__RequestTag/ray_cluster_name": tags(node)["ray-cluster-name"],
            "ec2__InstanceType": node["InstanceType"],
            "ec2__MetadataHttpTokens": node["MetadataOptions"]["HttpTokens"],
            "ec2__InstanceProfile": node["IamInstanceProfile"]["Arn"],
        }
        here = f"arn:aws:ec2:us-east-1:{account}"
        assert allows([document], "ec2:RunInstances", f"{here}:instance/*", **request)
        assert allows([document], "ec2:RunInstances", f"{here}:security-group/{group['GroupId']}")
        mine = {"aws__ResourceTag/ray_cluster_name": tags(node)["ray-cluster-name"]}
        assert allows([document], "ec2:TerminateInstances", f"{here}:instance/{node['InstanceId']}", **mine)
    assert allows(
        [document],
        "iam:PassRole",
        f"arn:aws:iam::{account}:role/{ROLE}-worker",
        iam__PassedToService="ec2.amazonaws.com",
    )


def test_the_key_pair_is_the_clusters_own(laptop: Laptop, output: str) -> None:
    (key,) = laptop.client("ec2").describe_key_pairs()["KeyPairs"]
    assert key["KeyName"] == f"{NAME}-us-east-1"
    (file,) = (laptop.folder / "home" / ".ssh").glob("*.pem")
    assert file.stat().st_mode & 0o077 == 0


def test_no_file_command_or_log_has_the_token(laptop: Laptop, output: str) -> None:
    token = (laptop.folder / "home" / ".ray" / "auth_token").read_text()
    written = [file.read_text() for file in (laptop.folder / ".infra").rglob("*") if file.is_file()]
    commands = [(laptop.folder / f"{name}.log").read_text() for name in ("ssh", "rsync")]
    assert not [text for text in [output, *written, *commands] if token in text]
    assert any("auth_token" in text for text in commands), "it did not reach the head"
    assert "RAY_AUTH_MODE=token" in commands[0]


def test_status_shows_every_node(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    printed = laptop.infra("status", "infra/aws.yaml")
    assert "3 nodes" in printed
    assert all(node["InstanceId"] in printed and node["PublicIpAddress"] in printed for node in laptop.instances())
    for word in ("head (m7i.xlarge)", "gpu-spot (g6.xlarge)", "spot", "on demand", "running, up-to-date", "0 min"):
        assert word in printed


def test_nodes_with_efa_get_the_group_at_their_interfaces(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    script = """
import json, sys, yaml
from infra.launchers.ray_up import RayUpCluster
from pathlib import Path
from tests.ray_internals import bootstrap_aws, prepare_config
config = yaml.safe_load(open("infra/aws.yaml"))
efa = {"DeviceIndex": 0, "NetworkCardIndex": 0, "InterfaceType": "efa", "SubnetId": sys.argv[1]}
config["available_node_types"]["gpu-spot"]["node_config"]["NetworkInterfaces"] = [efa]
config = RayUpCluster(Path("infra/aws.yaml"), config).cloud.prepare(sys.argv[2], None)
config = bootstrap_aws(prepare_config(config))
print(json.dumps(config["available_node_types"]["gpu-spot"]["node_config"]))
"""
    ec2 = laptop.client("ec2")
    (ours,) = ec2.describe_security_groups(GroupNames=[f"{NAME}-nodes"])["SecurityGroups"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    command = [sys.executable, "-c", script, subnet, f"{HERE}/32"]
    done = subprocess.run(
        command, cwd=laptop.folder, env=laptop.environment, check=True, timeout=120, capture_output=True, text=True
    )
    node = json.loads(done.stdout.splitlines()[-1])
    assert [part["Groups"] for part in node["NetworkInterfaces"]] == [[ours["GroupId"]]]


def test_down_in_another_region_is_refused(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    config = yaml.safe_load((laptop.folder / "infra" / "aws.yaml").read_text())
    config["provider"]["region"] = "eu-west-1"
    (laptop.folder / "moved.yaml").write_text(yaml.safe_dump(config))
    printed = laptop.infra("down", "moved.yaml", code=1)
    assert f"found aws eu-west-1, but .infra/{NAME}/cluster.yaml is of a cluster {NAME} in aws us-east-1" in printed
    assert laptop.rendered
    assert len(laptop.instances()) == 3


def test_up_again_changes_the_door_and_nothing_else(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    before = sorted(node["InstanceId"] for node in laptop.instances())
    images = laptop.rendered["metadata"]["images"]
    printed = laptop.infra("up", "infra/aws.yaml", "--ssh-from", "198.51.100.8")
    assert "--no-restart" in printed, "a run would have died"
    assert sorted(node["InstanceId"] for node in laptop.instances()) == before
    assert laptop.rendered["metadata"]["images"] == images
    groups = laptop.client("ec2").describe_security_groups(GroupNames=[f"{NAME}-nodes"])["SecurityGroups"]
    addresses = [part["CidrIp"] for rule in groups[0]["IpPermissions"] for part in rule["IpRanges"]]
    assert addresses == ["198.51.100.8/32"]
    assert len(groups[0]["IpPermissions"]) == 2


def test_down_says_what_is_left(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    ec2 = laptop.client("ec2")
    marks = [{"ResourceType": "volume", "Tags": [{"Key": "ray-cluster-name", "Value": NAME}]}]
    disk = ec2.create_volume(AvailabilityZone="us-east-1a", Size=7, TagSpecifications=marks)["VolumeId"]
    printed = laptop.infra("down", "infra/aws.yaml", code=1)
    assert f"infra down: {NAME} is not all gone: volume {disk} (7 GB)" in printed
    ec2.delete_volume(VolumeId=disk)


def test_down_leaves_nothing_and_can_be_repeated(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    other = laptop.client("ec2").run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0]
    for _ in range(2):
        assert f"{NAME}: nothing billable is left in aws us-east-1" in laptop.infra("down", "infra/aws.yaml")
    ec2 = laptop.client("ec2")
    assert [node["InstanceId"] for node in laptop.instances("pending", "running", "stopping", "stopped")] == [
        other["InstanceId"]
    ], "the node of somebody else"
    assert not [disk for disk in ec2.describe_volumes()["Volumes"] if tags(disk).get("ray-cluster-name") == NAME]
    names = {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert f"{NAME}-nodes" not in names
    assert not (laptop.folder / ".infra" / NAME).exists()
    assert laptop.client("iam").get_role(RoleName=f"{ROLE}-head")["Role"]


def test_down_ends_nodes_that_this_laptop_knows_nothing_of(laptop: Laptop, workers: list[dict[str, Any]]) -> None:
    marks = [{"ResourceType": "instance", "Tags": [{"Key": "ray-cluster-name", "Value": NAME}]}]
    laptop.client("ec2").run_instances(ImageId="ami-12c6146b", MinCount=2, MaxCount=2, TagSpecifications=marks)
    laptop.infra("down", "infra/aws.yaml", "--forget")
    assert not [node for node in laptop.instances() if tags(node).get("ray-cluster-name") == NAME]
    iam = laptop.client("iam")
    assert not [role for role in iam.list_roles()["Roles"] if role["RoleName"].startswith(f"{NAME}-")]
    assert not iam.list_instance_profiles()["InstanceProfiles"]


def test_a_group_of_the_users_that_is_open_to_the_world_is_refused(laptop: Laptop, workers: Any) -> None:
    ec2 = laptop.client("ec2")
    group = ec2.create_security_group(GroupName="mine", Description="mine")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=0, ToPort=1024, CidrIp="0.0.0.0/0")
    config = yaml.safe_load((laptop.folder / "infra" / "aws.yaml").read_text())
    for node in config["available_node_types"].values():
        node["node_config"]["SecurityGroupIds"] = [group]
    (laptop.folder / "mine.yaml").write_text(yaml.safe_dump(config))
    printed = laptop.infra("up", "mine.yaml", "--ssh-from", HERE, code=1)
    assert f"SecurityGroupIds: {group} lets the whole world try port 22" in printed


def test_without_a_remote_nothing_starts(laptop: Laptop) -> None:
    config = laptop.folder / ".dvc" / "config"
    before = config.read_text()
    config.write_text("[core]\n    no_scm = True\n")
    printed = laptop.infra("up", "infra/aws.yaml", "--ssh-from", HERE, code=1)
    config.write_text(before)
    assert "DVC has no default remote" in printed
    assert "`python -m infra storage s3://BUCKET/PREFIX`" in printed
    assert not [node for node in laptop.instances() if tags(node).get("ray-cluster-name") == NAME], "something started"
