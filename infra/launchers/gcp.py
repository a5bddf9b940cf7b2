"""A cluster of Ray's launcher on Google Cloud: what its nodes need besides Ray, through the gcloud command."""

import json
import shutil
import subprocess
from datetime import datetime
from typing import Any

from infra.launchers.address import own_address
from infra.launchers.cloud import Config, Node, head_config, node_configs
from infra.shell import call
from llm4seg.utils.errors import InputError

LABEL = "ray-cluster-name"  # Ray's own
SCOPES = ["https://www.googleapis.com/auth/compute"]
ROLE = "roles/compute.instanceAdmin.v1"
# Run at every boot. Neither Ray nor what watches for idleness is there after a reboot.
END_AT_A_SECOND_BOOT = "#!/bin/sh\n[ ! -e /var/lib/booted-before ] || shutdown -h now\ntouch /var/lib/booted-before\n"
METADATA = {"enable-oslogin": "FALSE", "startup-script": END_AT_A_SECOND_BOOT}  # Ray brings an SSH key of its own


class GoogleCloud:
    """See `infra.launchers.cloud.Cloud`. Workers have no service account: data come with the storage's own keys."""

    def __init__(self, config: Config) -> None:
        self.config, self.name, self.provider = config, config["cluster_name"], config["provider"]

    @property
    def account(self) -> str:
        return f"{self.name}-head@{self.provider['project_id']}.iam.gserviceaccount.com"

    def requirements(self) -> list[str]:
        return [
            f"network {self.name} with one subnet in {self.provider['region']}",
            f"its firewall: SSH from your address alone, anything between nodes ({self.name}-ssh, -members)",
            f"service account {self.name}-head, which starts and ends nodes; workers have none",
        ]

    def prepare(self, ssh_from: str | None, before: Config | None) -> Config:
        self._make_network(ssh_from or own_address())
        self._make_account()
        seconds = round(3600 * self.config["metadata"]["lifetime_hours"])
        for node in node_configs(self.config):
            node["networkInterfaces"] = [self._interface()]
            node["tags"] = {"items": [self.name]}
            node["scheduling"] = {**node["scheduling"], "maxRunDuration": {"seconds": seconds}}
            node["metadata"] = {"items": [{"key": key, "value": value} for key, value in METADATA.items()]}
        head_config(self.config)["serviceAccounts"] = [{"email": self.account, "scopes": SCOPES}]
        return self.config

    def _interface(self) -> dict[str, Any]:
        region = f"projects/{self.provider['project_id']}/regions/{self.provider['region']}"
        outwards = [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}]
        return {"subnetwork": f"{region}/subnetworks/{self.name}", "accessConfigs": outwards}

    def _make_network(self, ssh_from: str) -> None:
        region, tagged = f"--region={self.provider['region']}", f"--target-tags={self.name}"
        self._make("compute", "networks", self.name, "--subnet-mode=custom")
        self._make(
            "compute networks", "subnets", self.name, f"--network={self.name}", "--range=10.128.0.0/20", where=[region]
        )
        members = [f"--source-tags={self.name}", tagged, "--allow=tcp,udp,icmp"]
        self._make("compute", "firewall-rules", f"{self.name}-members", f"--network={self.name}", *members)
        ssh = f"{self.name}-ssh"
        if self._is_there("compute", "firewall-rules", ssh):
            self._gcloud("compute", "firewall-rules", "update", ssh, f"--source-ranges={ssh_from}")
        else:
            rule = [f"--network={self.name}", "--allow=tcp:22", f"--source-ranges={ssh_from}", tagged]
            self._gcloud("compute", "firewall-rules", "create", ssh, *rule)

    def _make_account(self) -> None:
        if not self._is_there("iam", "service-accounts", self.account):
            self._gcloud("iam", "service-accounts", "create", f"{self.name}-head")
        member = [f"--member=serviceAccount:{self.account}", f"--role={ROLE}", "--condition=None"]
        command = ["gcloud", "projects", "add-iam-policy-binding", self.provider["project_id"], *member]
        call([*command, "--quiet", "--format=none"])

    def nodes(self) -> list[Node]:
        found = [self._node(part) for part in self._list("instances", f"labels.{LABEL}={self.name}")]
        return sorted(found, key=lambda node: (node.kind != "head", node.started or 0))

    def _node(self, found: dict[str, Any]) -> Node:
        labels = found.get("labels", {})
        addresses = [access.get("natIP") for part in found["networkInterfaces"] for access in part["accessConfigs"]]
        return Node(
            name=found["name"],
            kind=labels.get("ray-node-type", "?"),
            node_type=f"{labels.get('ray-user-node-type', '?')} ({found['machineType'].rpartition('/')[2]})",
            market="spot" if found["scheduling"].get("provisioningModel") == "SPOT" else "on demand",
            state=f"{found['status'].lower()}, {labels.get('ray-node-status', 'not set up')}",
            started=datetime.fromisoformat(found["creationTimestamp"]).timestamp(),
            address=next((address for address in addresses if address), ""),
        )

    def terminate(self) -> None:
        """The head first, which would start others. The firewall's door for SSH goes with the nodes."""
        while nodes := self.nodes():
            ending = [node.name for node in nodes if node.kind == "head"] or [node.name for node in nodes]
            zone = f"--zone={self.provider['availability_zone']}"
            self._gcloud("compute", "instances", "delete", *ending, zone)
        if self._is_there("compute", "firewall-rules", f"{self.name}-ssh"):
            self._gcloud("compute", "firewall-rules", "delete", f"{self.name}-ssh")

    def leftovers(self) -> list[str]:
        """Boot disks have their node's name, which begins with the cluster's."""
        disks = self._list("disks", f"name~^ray-{self.name}-(head|worker)-")
        return [
            *(f"instance {node.name} ({node.state})" for node in self.nodes()),
            *(f"disk {disk['name']} ({disk['sizeGb']} GB)" for disk in disks),
        ]

    def forget(self) -> None:
        region = f"--region={self.provider['region']}"
        for group, kind, name, where in (
            ("compute", "firewall-rules", f"{self.name}-members", []),
            ("compute networks", "subnets", self.name, [region]),
            ("compute", "networks", self.name, []),
            ("iam", "service-accounts", self.account, []),
        ):
            if self._is_there(group, kind, name, *where):
                self._gcloud(*group.split(), kind, "delete", name, *where)

    def _make(self, group: str, kind: str, name: str, *options: str, where: list[str] | None = None) -> None:
        if not self._is_there(group, kind, name, *(where or [])):
            self._gcloud(*group.split(), kind, "create", name, *options, *(where or []))

    def _gcloud(self, *words: str) -> None:
        call(["gcloud", *words, f"--project={self.provider['project_id']}", "--quiet"])

    def _is_there(self, group: str, kind: str, name: str, *where: str) -> bool:
        done = self._query(*group.split(), kind, "describe", name, *where)
        if done.returncode and not any(text in done.stderr for text in ("not found", "NOT_FOUND", "does not exist")):
            raise InputError(f"gcloud: {' '.join(done.stderr.split())}")
        return done.returncode == 0

    def _list(self, kind: str, condition: str) -> list[dict[str, Any]]:
        done = self._query("compute", kind, "list", f"--filter={condition}")
        if done.returncode:
            raise InputError(f"gcloud: {' '.join(done.stderr.split())}")
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return found

    def _query(self, *words: str) -> subprocess.CompletedProcess[str]:
        if shutil.which("gcloud") is None:
            raise InputError("gcloud is not installed: https://cloud.google.com/sdk/docs/install")
        where = [f"--project={self.provider['project_id']}", "--format=json", "--quiet"]
        return subprocess.run(["gcloud", *words, *where], capture_output=True, text=True)
