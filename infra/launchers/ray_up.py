"""Clusters of Ray's cluster launcher: `ray up` and its sisters, with a file that is checked and filled in before."""

import copy
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from rich.console import Console

from infra.launchers.checks import check, provider_of, ssh_range
from infra.launchers.cloud import Cloud, Config, node_configs
from infra.launchers.table import nodes_table
from infra.launchers.token import ON_NODES, make_token, token_file, token_in_use
from infra.launchers.tunnel import free_port, tunnel
from infra.shell import call
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import remove, write_text

FOLDER = Path(".infra")  # git does not see it
RAY = str(Path(sys.executable).with_name("ray"))


class RayUpCluster:
    """See `infra.launchers.Launcher`. `ssh_from`: addresses that may connect by SSH instead of this laptop's own;
    `forget`: `down` takes away what costs nothing, too.
    """

    def __init__(self, path: Path, config: Config, ssh_from: str | None = None, forget: bool = False) -> None:
        check(path, config)
        self.path, self.config, self.forget = path, _without_nulls(config), forget
        self.ssh_from = ssh_range(ssh_from) if ssh_from else None
        self.cloud = _cloud(self.config)

    @property
    def rendered(self) -> Path:
        """The file that `ray up` gets."""
        return FOLDER / self.config["cluster_name"] / "cluster.yaml"

    def up(self, dry_run: bool) -> None:
        self._refuse_another_provider()
        if dry_run:
            self._print_what_up_would_do()
            return
        make_token()
        config = self.cloud.prepare(self.ssh_from, self._before())
        write_text(self.rendered, self._text(config))
        running = any(node.kind == "head" and "up-to-date" in node.state for node in self.cloud.nodes())
        self._ray("up", "--yes", str(self.rendered), *(["--no-restart"] if running else []))

    def down(self, dry_run: bool) -> None:
        self._refuse_another_provider()
        if dry_run:
            self._ray("down", "--yes", str(self.rendered), dry_run=True)
            print("then: whatever still has the cluster's tag ends; nothing billable may be left")
            return
        if self.rendered.exists() and self.cloud.nodes():
            self._ray("down", "--yes", str(self.rendered))
        self.cloud.terminate()
        if left := self.cloud.leftovers():
            raise InputError(f"{self.config['cluster_name']} is not all gone: {'; '.join(left)}")
        if self.forget:
            self.cloud.forget()
        remove(self.rendered.parent)
        print(f"{self.config['cluster_name']}: nothing billable is left in {provider_of(self.config)}")

    def status(self, dry_run: bool) -> None:
        self._refuse_another_provider()
        if dry_run:
            print(f"would list the nodes of {self.config['cluster_name']}")
            return
        Console().print(nodes_table(self.config["cluster_name"], self.cloud.nodes()))

    def attach(self, dry_run: bool) -> None:
        self._ray("attach", self._running_file(dry_run), dry_run=dry_run)

    def logs(self, dry_run: bool) -> None:
        self._ray("monitor", self._running_file(dry_run), dry_run=dry_run)

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        """With the token in use, so that JobSubmissionClient is let in."""
        port = free_port()
        command = [RAY, "dashboard", self._running_file(dry_run=False), "--port", str(port)]
        command += ["--remote-port", self._dashboard_port()]
        with token_in_use(), tunnel(command, port) as address:
            yield address

    def _dashboard_port(self) -> str:
        """On the head: Ray's usual one, unless the file starts it on another."""
        found = re.search(r"--dashboard-port[= ](\d+)", " ".join(self.config["head_start_ray_commands"]))
        return found[1] if found else "8265"

    def _before(self) -> Config | None:
        """What the last `up` left, if there was one since the last `down`."""
        if not self.rendered.exists():
            return None
        config: Config = yaml.safe_load(self.rendered.read_text(encoding="utf-8"))
        return config

    def _refuse_another_provider(self) -> None:
        """Raise InputError if the last `up` of this name was elsewhere: its nodes would run on, looked for in vain."""
        here = provider_of(self.config)
        if (before := self._before()) and (there := provider_of(before)) != here:
            name = self.config["cluster_name"]
            raise InputError(
                f"{self.path}: provider: found {here}, but {self.rendered} is of a cluster {name} in {there}; "
                "allowed: the same until `down` has ended that one, or another cluster_name"
            )

    def _running_file(self, dry_run: bool) -> str:
        self._refuse_another_provider()
        if not dry_run and not self.rendered.exists():
            raise InputError(f"{self.rendered}: no such file; `python -m infra up {self.path}` from here makes it")
        return str(self.rendered)

    def _text(self, config: Config) -> str:
        config["file_mounts"] = {
            **{remote: str(Path(local).expanduser().absolute()) for remote, local in config["file_mounts"].items()},
            ON_NODES: str(token_file()),
        }
        return f"# Made from {self.path} by `python -m infra up`; the next one makes it anew.\n" + yaml.safe_dump(
            json.loads(json.dumps(config)), sort_keys=False, width=120
        )

    def _print_what_up_would_do(self) -> None:
        origin = f"your address: {self.ssh_from or 'this machine, as the world sees it'}"
        for line in [*self.cloud.requirements(), origin, f"token: {token_file()}, copied to the nodes"]:
            print(f"- {line}")
        print(f"- {self.rendered}: {self.path}, with all that filled in")
        self._ray("up", "--yes", str(self.rendered), dry_run=True)

    def _ray(self, *words: str, dry_run: bool = False) -> None:
        """The launcher of this environment, with the file's own choices: no cached answers of clouds."""
        quiet = {"RAY_UP_enable_autoscaler_v2": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
        cached = [] if words[0] == "down" or words[0] == "monitor" else ["--no-config-cache"]
        call([RAY if shutil.which(RAY) else "ray", *words, *cached], dry_run, {**os.environ, **quiet})


def _without_nulls(config: Config) -> Config:
    """A copy in which fields of a node that are null are left out: the way to undo one that was merged in."""
    config = copy.deepcopy(config)
    config.setdefault("file_mounts", {})
    for node in node_configs(config) if "available_node_types" in config else []:
        for key in [key for key, value in node.items() if value is None]:
            del node[key]
    return config


def _cloud(config: Config) -> Cloud:
    if config["provider"]["type"] == "aws":
        from infra.launchers.aws import AwsCloud

        return AwsCloud(config)
    from infra.launchers.onprem import OwnMachines

    return OwnMachines(config)
