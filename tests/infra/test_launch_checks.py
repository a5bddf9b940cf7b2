"""Files of Ray's cluster launcher: ours are accepted, unsafe and broken ones are refused with the field named."""

import copy
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.__main__ import main
from infra.launchers import launcher
from infra.launchers.checks import check, ssh_range
from infra.launchers.table import duration
from infra.launchers.token import make_token, token_file
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

FILES = {name: yaml.safe_load((ROOT / "infra" / f"{name}.yaml").read_text()) for name in ("aws", "onprem")}
AWS_HEAD, AWS_GPU = ("available_node_types.head.node_config", "available_node_types.gpu-spot.node_config")
MISSING: Any = object()
OPEN = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


def changed(name: str, dotted: str, value: Any) -> dict[str, Any]:
    """A copy of one of our files with another value; without anchors, so that nothing else changes."""
    config = yaml.safe_load(yaml.dump(FILES[name], Dumper=NoAliases))
    *above, last = dotted.split(".")
    part: Any = config
    for key in above:
        part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
    if value is MISSING:
        del part[last]
    else:
        part[int(last) if isinstance(part, list) else last] = value
    return config


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("name", FILES)
def test_our_files_are_accepted(name: str) -> None:
    check(Path(f"infra/{name}.yaml"), copy.deepcopy(FILES[name]))


@pytest.mark.parametrize(
    ("name", "dotted", "value", "message"),
    [
        ("aws", "cluster_name", "My cluster", "cluster_name: found 'My cluster', allowed: up to 40"),
        ("aws", "cluster_name", MISSING, "cluster_name: found null"),
        ("aws", "max_workers", "many", "max_workers: 'many' is not of type 'integer'"),
        ("aws", "max_worker", 3, "'max_worker' was unexpected"),
        ("aws", "available_node_types", MISSING, "available_node_types: found null"),
        ("aws", "head_node_type", "haed", "`head_node_type` must be one of `available_node_types`"),
        ("aws", "available_node_types.gpu-spot.min_workers", 9, "`max_workers` is smaller"),
        ("aws", "available_node_types.gpu-spot.resources", [], "available_node_types.gpu-spot.resources: [] is not"),
        ("aws", "metadata", MISSING, "metadata.lifetime_hours: found null"),
        ("aws", "metadata.lifetime_hours", 0, "metadata.lifetime_hours: found 0, allowed: above 0 to 336"),
        ("aws", "provider.region", MISSING, "provider.region: found null"),
        ("aws", "provider.cache_stopped_nodes", True, "provider.cache_stopped_nodes: found true, allowed: false"),
        ("aws", "provider.aws_credentials", {"aws_access_key_id": "x"}, "provider.aws_credentials: credentials belong"),
        ("aws", "provider.security_group.IpPermissions", OPEN, "provider.security_group.IpPermissions.0: found {"),
        ("aws", f"{AWS_HEAD}.MetadataOptions", MISSING, f"{AWS_HEAD}.MetadataOptions.HttpTokens: found null"),
        (
            "aws",
            f"{AWS_GPU}.MetadataOptions.HttpTokens",
            "optional",
            f"{AWS_GPU}.MetadataOptions.HttpTokens: found 'optional', allowed: 'required' (IMDSv2)",
        ),
        ("aws", f"{AWS_GPU}.BlockDeviceMappings", MISSING, f"{AWS_GPU}.BlockDeviceMappings: found null"),
        (
            "aws",
            f"{AWS_GPU}.BlockDeviceMappings.0.Ebs.Encrypted",
            False,
            f"{AWS_GPU}.BlockDeviceMappings.0.Ebs.Encrypted: found false, allowed: true",
        ),
        ("aws", f"{AWS_GPU}.BlockDeviceMappings.0.Ebs.Encrypted", 1, "Ebs.Encrypted: found 1, allowed: true"),
        ("aws", f"{AWS_GPU}.BlockDeviceMappings.0.Ebs.DeleteOnTermination", MISSING, "DeleteOnTermination: found null"),
        ("aws", f"{AWS_GPU}.InstanceInitiatedShutdownBehavior", "stop", "found 'stop', allowed: 'terminate'"),
        (
            "aws",
            f"{AWS_GPU}.InstanceMarketOptions.SpotOptions.SpotInstanceType",
            "persistent",
            f"{AWS_GPU}.InstanceMarketOptions.SpotOptions.SpotInstanceType: found 'persistent', allowed: 'one-time'",
        ),
        ("aws", f"{AWS_GPU}.ImageId", MISSING, f"{AWS_GPU}.ImageId: found null"),
        ("aws", "head_start_ray_commands", [], "head_start_ray_commands: found []"),
        ("aws", "head_start_ray_commands.1", "ray start --head", "head_start_ray_commands.1: found 'ray start --head'"),
        (
            "aws",
            "head_start_ray_commands.1",
            "RAY_AUTH_MODE=token ray start --head --dashboard-host=0.0.0.0",
            "allowed: `ray start` with --dashboard-host=127.0.0.1",
        ),
        ("aws", "worker_start_ray_commands.1", "ray start", "worker_start_ray_commands.1: found 'ray start'"),
        ("onprem", "provider.head_ip", MISSING, "provider.head_ip: found null"),
        ("onprem", "provider.worker_ips", "10.0.0.2", "provider.worker_ips: found '10.0.0.2'"),
        ("onprem", "worker_start_ray_commands.1", "ray start", "RAY_AUTH_MODE=token"),
    ],
)
def test_a_bad_file_is_refused_with_its_field(name: str, dotted: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as refused:
        check(Path("cluster.yaml"), changed(name, dotted, value))
    assert str(refused.value).startswith("cluster.yaml: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_node_type_may_have_dots_in_its_name() -> None:
    config = changed("aws", "max_workers", 4)
    config["available_node_types"]["ray.worker.gpu"] = config["available_node_types"].pop("gpu-spot")
    check(Path("cluster.yaml"), config)
    config["available_node_types"]["ray.worker.gpu"]["node_config"]["MetadataOptions"]["HttpTokens"] = "optional"
    with pytest.raises(InputError, match=r"available_node_types\.ray\.worker\.gpu\.node_config\.MetadataOptions"):
        check(Path("cluster.yaml"), config)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/16", "home"])
def test_not_everybody_may_come_by_ssh(text: str) -> None:
    with pytest.raises(InputError, match="--ssh-from: found"):
        ssh_range(text)


def test_an_address_is_a_range_of_one() -> None:
    assert [ssh_range(text) for text in ("203.0.113.7", "203.0.113.9/24", "2001:db8::1")] == [
        "203.0.113.7/32",
        "203.0.113.0/24",
        "2001:db8::1/128",
    ]


def test_options_of_rays_launcher_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--ssh-from: allowed for files of Ray's cluster launcher"):
        launcher("http://127.0.0.1:8265", ssh_from="203.0.113.7")


def test_the_token_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray" / "token"))
    before = os.umask(0)
    try:
        path = make_token()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text()
    assert len(token) > 30
    path.chmod(0o644)
    assert make_token().read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN: found a token in the environment") as refused:
        token_file()
    assert "secret" not in str(refused.value)


def test_ages_are_short() -> None:
    assert [duration(seconds) for seconds in (59, 60 * 59, 3600 * 3 + 1200, 3600 * 51)] == [
        "0 min",
        "59 min",
        "3 h 20 min",
        "2 d 3 h",
    ]


def test_another_cloud_is_skypilots(tmp_path: Path) -> None:
    file = tmp_path / "google.yaml"
    file.write_text("cluster_name: llm4seg\nprovider: {type: gcp, project_id: mine}\n")
    with pytest.raises(InputError) as refused:
        launcher(str(file))
    assert str(refused.value) == (
        f"{file}: provider.type: found 'gcp', allowed: aws, local; "
        "other clouds, such as gcp: infra/sky/task.yaml, by SkyPilot"
    )


@pytest.mark.parametrize("command", ["up", "down", "status", "attach", "logs"])
def test_what_skypilot_does_itself_is_named(command: str) -> None:
    with pytest.raises(SystemExit, match=r"a task of SkyPilot: `python -m infra submit .* `sky jobs logs`"):
        main([command, str(ROOT / "infra" / "sky" / "task.yaml")])
