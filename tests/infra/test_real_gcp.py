"""A cluster on Google Cloud, as far as that goes without it: gcloud and the API are stand-ins that remember what they
were told. What they would have refused, nothing here can tell.
"""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httplib2
import pytest
import yaml

from infra.launchers.cloud import Config
from infra.launchers.gcp import END_AT_A_SECOND_BOOT
from infra.launchers.ray_up import RayUpCluster
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT
from tests.ray_internals import GCPNodeProvider, bootstrap_gcp, prepare_config, validate_config

GCLOUD = """#!{python}
import json, os, sys
words = [word for word in sys.argv[1:] if not word.startswith("--")]
folder = "{folder}/state"
with open("{folder}/gcloud.log", "a") as log:
    print(*sys.argv[1:], file=log)
verbs = ("describe", "create", "update", "delete", "list", "add-iam-policy-binding")
verb = next(word for word in words if word in verbs)
at = words.index(verb)
kind, names = words[at - 1], [word.partition("@")[0] for word in words[at + 1:]]
files = [os.path.join(folder, kind + "-" + name) for name in names]
if verb == "list":
    here = os.path.join(folder, kind + ".json")
    print(open(here).read() if os.path.exists(here) else "[]")
elif verb == "describe" and not os.path.exists(files[0]):
    sys.exit("ERROR: The resource was not found")
elif verb == "create":
    open(files[0], "x").close()
elif verb == "delete":
    for file in files:
        os.remove(file) if kind != "instances" else None
    if kind == "instances":
        os.remove(os.path.join(folder, "instances.json"))
"""
HERE = "198.51.100.7"


class Google:
    """Its API: projects, accounts and rights that are there, and instances that start and are then there."""

    def __init__(self) -> None:
        self.instances: list[dict[str, Any]] = []

    def answer(self, uri: str, method: str = "GET", body: Any = None, **__: Any) -> Any:
        path = uri.partition("?")[0]
        if method == "POST" and path.endswith("/instances"):
            self.instances.append(json.loads(body))
        reply: dict[str, Any] = {"name": "operation", "status": "DONE", "done": True}
        if re.search(r"v1/projects/[^/:]+$", path):
            reply |= {
                "projectId": "your-project",
                "lifecycleState": "ACTIVE",
                "commonInstanceMetadata": {"fingerprint": "f"},
            }
        elif "serviceAccounts" in path:
            reply |= {"email": "ray-autoscaler-sa-v1@your-project.iam.gserviceaccount.com", "projectId": "your-project"}
        elif path.endswith(":getIamPolicy"):
            reply |= {"bindings": []}
        elif method == "GET" and path.endswith("/instances"):
            reply = {"items": self.instances}
        return httplib2.Response({"status": 200}), json.dumps(reply).encode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = tmp_path / "tools" / "gcloud"
    tool.parent.mkdir()
    (tmp_path / "state").mkdir()
    tool.write_text(GCLOUD.format(python=sys.executable, folder=tmp_path))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cluster(**changes: Any) -> RayUpCluster:
    config = yaml.safe_load((ROOT / "infra" / "gcp.yaml").read_text())
    return RayUpCluster(Path("gcp.yaml"), {**config, **changes}, ssh_from=HERE)


def prepared() -> Config:
    return copy.deepcopy(cluster().cloud.prepare(f"{HERE}/32", None))


def gcloud_calls(folder: Path) -> list[str]:
    lines = (folder / "gcloud.log").read_text().splitlines()
    (folder / "gcloud.log").unlink()
    return [line for line in lines if " describe " not in line]


def test_what_the_nodes_need_is_made_once(folder: Path) -> None:
    prepared()
    first = gcloud_calls(folder)
    assert [line for line in first if "llm4seg-gcp-ssh" in line] == [
        "compute firewall-rules create llm4seg-gcp-ssh --network=llm4seg-gcp --allow=tcp:22 "
        f"--source-ranges={HERE}/32 --target-tags=llm4seg-gcp --project=your-project --quiet"
    ]
    members = next(line for line in first if "llm4seg-gcp-members" in line)
    assert "--source-tags=llm4seg-gcp" in members
    assert "--target-tags=llm4seg-gcp" in members
    assert not [line for line in first if "0.0.0.0/0" in line]
    prepared()
    assert [line.split(" --")[0] for line in gcloud_calls(folder)] == [
        "compute firewall-rules update llm4seg-gcp-ssh",
        "projects add-iam-policy-binding your-project",
    ]


def test_nodes_are_as_safe_as_the_file_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bodies of instances.insert, as Ray's own bootstrap and node provider send them."""
    google = Google()
    monkeypatch.setattr(httplib2.Http, "request", google.answer)
    config = prepared()
    config["provider"]["gcp_credentials"] = {"type": "credentials_token", "credentials": "none"}
    config = prepare_config(config)
    validate_config(config)
    config = bootstrap_gcp(config)
    provider = GCPNodeProvider(config["provider"], config["cluster_name"])
    for name, kind in (("head", "head"), ("gpu_spot", "worker"), ("gpu_on_demand", "worker")):
        node = {
            **(config["head_node"] if kind == "head" else {}),
            **config["available_node_types"][name]["node_config"],
        }
        marks = {"ray-node-type": kind, "ray-user-node-type": name, "ray-node-name": f"ray-llm4seg-gcp-{kind}"}
        provider.create_node(node, marks, 1)
    assert [body["scheduling"].get("provisioningModel") for body in google.instances] == [None, "SPOT", None]
    for body in google.instances:
        assert set(body["shieldedInstanceConfig"].values()) == {True}
        assert body["scheduling"]["maxRunDuration"] == {"seconds": 24 * 3600}
        assert body["scheduling"]["instanceTerminationAction"] == "DELETE"
        assert body["labels"]["ray-cluster-name"] == "llm4seg-gcp"
        assert body["tags"] == {"items": ["llm4seg-gcp"]}
        assert body["networkInterfaces"][0]["subnetwork"].endswith("/subnetworks/llm4seg-gcp")
        assert body["name"].startswith("ray-llm4seg-gcp-")
        (script,) = [one["value"] for one in body["metadata"]["items"] if one["key"] == "startup-script"]
        assert script == END_AT_A_SECOND_BOOT
    accounts = [[found["email"] for found in body.get("serviceAccounts", [])] for body in google.instances]
    assert accounts == [["llm4seg-gcp-head@your-project.iam.gserviceaccount.com"], [], []]
    assert google.instances[0]["serviceAccounts"][0]["scopes"] == ["https://www.googleapis.com/auth/compute"]


def test_a_node_ends_at_a_second_boot(folder: Path) -> None:
    """The script runs at every boot."""
    tool = folder / "tools" / "shutdown"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {folder}/shutdown.log\n')
    tool.chmod(0o755)
    script = END_AT_A_SECOND_BOOT.replace("/var/lib/", f"{folder}/")
    for boot in (1, 2):
        subprocess.run(["sh", "-e", "-c", script], check=True, timeout=30)
        assert (folder / "shutdown.log").exists() is (boot == 2)
    assert (folder / "shutdown.log").read_text() == "-h now\n"


def test_down_ends_what_is_left_and_closes_the_door(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared()
    gcloud_calls(folder)
    node = {
        "name": "ray-llm4seg-gcp-head-1",
        "labels": {"ray-cluster-name": "llm4seg-gcp", "ray-node-type": "head", "ray-user-node-type": "head"},
        "machineType": "zones/us-central1-a/machineTypes/n2-standard-4",
        "status": "RUNNING",
        "scheduling": {},
        "creationTimestamp": "2026-01-01T00:00:00.000-07:00",
        "networkInterfaces": [{"accessConfigs": [{"natIP": "203.0.113.5"}]}],
    }
    (folder / "state" / "instances.json").write_text(json.dumps([node]))
    cluster().status(dry_run=False)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("ray-llm4seg-gcp-head-1", "head (n2-standard-4)", "on demand", "203.0.113.5"))
    cluster().down(dry_run=False)
    ended = [line.split(" --")[0] for line in gcloud_calls(folder) if " delete " in line]
    assert ended == ["compute instances delete ray-llm4seg-gcp-head-1", "compute firewall-rules delete llm4seg-gcp-ssh"]
    cluster().down(dry_run=False)
    assert not [line for line in gcloud_calls(folder) if " delete " in line]


def test_a_disk_that_is_left_is_named(folder: Path) -> None:
    (folder / "state" / "disks.json").write_text(json.dumps([{"name": "ray-llm4seg-gcp-worker-2", "sizeGb": "100"}]))
    with pytest.raises(InputError, match=r"llm4seg-gcp is not all gone: disk ray-llm4seg-gcp-worker-2 \(100 GB\)"):
        cluster().down(dry_run=False)


def test_without_gcloud_one_line_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder / "nothing"))
    with pytest.raises(InputError, match="gcloud is not installed"):
        cluster().status(dry_run=False)
