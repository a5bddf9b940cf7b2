"""A cluster of Ray's launcher on AWS: what its nodes need besides Ray, made before them and taken away after them."""

from pathlib import Path

import boto3

from infra.jobs.dvc_repo import bucket_and_prefix
from infra.launchers.address import own_address
from infra.launchers.aws import images, kms, leftovers, roles, security_group
from infra.launchers.aws.client import Aws, translate_aws_errors
from infra.launchers.cloud import Config, Node, node_configs
from infra.launchers.policies import Account, storage_policy

PER_BOOT = "/var/lib/cloud/scripts/per-boot"  # cloud-init runs what is there at every boot


def lifetime_script(minutes: int) -> str:
    """User data by which a node ends after so many minutes, or as soon as it boots again.

    EC2 runs user data at the first boot alone, after the scripts for every boot. A planned shutdown does not outlive a
    reboot, and neither do Ray and what watches for idleness: such a node is of no use, and nobody would end it.
    """
    again = f"{PER_BOOT}/end-at-a-second-boot"
    return (
        f"#!/bin/sh\nshutdown -h +{minutes}\nmkdir -p {PER_BOOT}\n"
        f"printf '#!/bin/sh\\nshutdown -h now\\n' > {again}\nchmod 755 {again}\n"
    )


class AwsCloud:
    """See `infra.launchers.cloud.Cloud`."""

    def __init__(self, config: Config) -> None:
        self.config, self.name = config, config["cluster_name"]

    def _aws(self) -> Aws:
        session = boto3.Session(region_name=self.config["provider"]["region"])
        _, partition, _, _, number, _ = session.client("sts").get_caller_identity()["Arn"].split(":", 5)
        return Aws(session, Account(partition, session.region_name, number), self.name)

    def requirements(self) -> list[str]:
        head, worker = (roles.name(self.name, self.config["provider"]["region"], kind) for kind in roles.KINDS)
        group = security_group.name(self.name)
        return [
            f"security group {group}: SSH from your address alone, anything between its members",
            f"roles and instance profiles {head}, {worker}: the project's prefix in its bucket; the head starts and "
            "ends workers of this cluster",
            "AWS's role for spot instances, if the account has none yet",
        ]

    def prepare(self, ssh_from: str | None, before: Config | None) -> Config:
        with translate_aws_errors():
            aws = self._aws()
            bucket, prefix = bucket_and_prefix(Path.cwd())
            roles.refuse_others(aws, self.config)
            config = images.with_image_ids(aws, self.config, before)
            config = security_group.with_group(aws, config, ssh_from or own_address())
            config = roles.with_profiles(
                aws, config, storage_policy(aws.account, bucket, prefix, kms.bucket_key(aws, bucket))
            )
            return self._with_tags_and_lifetime(config)

    def _with_tags_and_lifetime(self, config: Config) -> Config:
        """Tags for what is billed, and the longest life of a node, which begins when it boots."""
        tags = [{"Key": leftovers.TAG, "Value": self.name}]
        minutes = round(60 * config["metadata"]["lifetime_hours"])
        for node in node_configs(config):
            billed = ["volume", *(["spot-instances-request"] if node.get("InstanceMarketOptions") else [])]
            node["TagSpecifications"] = [
                *node.get("TagSpecifications", []),
                *({"ResourceType": kind, "Tags": tags} for kind in billed),
            ]
            node["UserData"] = lifetime_script(minutes) + node.get("UserData", "")
        config["provider"].setdefault("key_pair", {"key_name": f"{self.name}-{config['provider']['region']}"})
        return config

    def nodes(self) -> list[Node]:
        with translate_aws_errors():
            return leftovers.nodes(self._aws())

    def terminate(self) -> None:
        with translate_aws_errors():
            aws = self._aws()
            leftovers.terminate(aws)
            security_group.remove(aws)

    def leftovers(self) -> list[str]:
        with translate_aws_errors():
            return leftovers.billed(self._aws())

    def forget(self) -> None:
        with translate_aws_errors():
            roles.remove(self._aws())
