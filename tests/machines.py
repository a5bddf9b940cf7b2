"""Machines of a Ray cluster on this one: each has its own network address, home, temporary folder and processes."""

import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
DASHBOARD, GCS = 8265, 6379
ATTEMPTS = 5  # Ray waits 30 seconds for itself, which on a busy machine may be too little
# mounts hide a folder from a machine; Ray's sockets and sessions are below /tmp/ray
ENTER = 'mount --bind "$1" /tmp/ray && mount -t tmpfs tmpfs "$2" && shift 2 && exec "$@"'


def can_make_machines() -> bool:
    """Whether this machine allows network namespaces."""
    name = f"llm4seg-{os.getpid()}"
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return True


class Machines:
    """Machines on a bridge of their own. `hidden` is a folder of this machine that the others do not see."""

    def __init__(self, root: Path, hidden: Path) -> None:
        self._root, self._hidden = root, hidden
        self._number = 100 + os.getpid() % 100
        self._bridge = f"lj{self._number}"
        self._names: list[str] = []
        self.here = self._address(1)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self.here}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def _address(self, host: int) -> str:
        return f"10.{self._number}.77.{host}"

    @property
    def dashboard(self) -> str:
        return f"http://{self._address(2)}:{DASHBOARD}"

    def home(self, name: str) -> Path:
        return self._root / name / "home"

    def start(self, name: str, environment: Mapping[str, str], cpus: int) -> None:
        """Start a machine with Ray on it: the first is the head."""
        head, address = not self._names, self._address(len(self._names) + 2)
        self._names.append(name)
        self._plug_in(name, address)
        ray = self._root / name / "ray"
        for folder in (ray, self.home(name), self._root / name / "tmp", Path("/tmp/ray"), self._hidden):
            folder.mkdir(parents=True, exist_ok=True)
        place = ["--head", f"--port={GCS}", f"--dashboard-host={address}", f"--dashboard-port={DASHBOARD}"]
        start = [str(BIN / "ray"), "start", *(place if head else [f"--address={self._address(2)}:{GCS}"])]
        start += [f"--node-ip-address={address}", f"--num-cpus={cpus}", "--num-gpus=0"]
        start += ["--object-store-memory=100000000", "--disable-usage-stats"]
        command = ["ip", "netns", "exec", self._space(name), "unshare", "--mount", "sh", "-c", ENTER, "sh"]
        own = {"HOME": str(self.home(name)), "TMPDIR": str(self._root / name / "tmp"), "OMP_NUM_THREADS": "1"}
        own |= {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300", "RAY_agent_register_timeout_ms": "300000"}
        own["GLOO_SOCKET_IFNAME"] = "eth0"  # all machines have this one's name, which means 127.0.0.1
        own["RAY_TMPDIR"] = "/tmp"  # a socket's path has 107 bytes at most
        own |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "DVC_SITE_CACHE_DIR": str(self._root / name / "site")}
        order = [*command, str(ray), str(self._hidden), *start]
        for _ in range(ATTEMPTS):
            with (self._root / name / "log").open("w") as log:
                done = subprocess.run(
                    order, env={**environment, **self.environment, **own}, cwd=self.home(name), stdout=log, stderr=log
                )
            if done.returncode == 0:
                return
            self.kill(name)
        raise TimeoutError((self._root / name / "log").read_text()[-2000:])

    def _space(self, name: str) -> str:
        return f"{self._bridge}-{name}"

    def _plug_in(self, name: str, address: str) -> None:
        """A network namespace with one cable to the bridge."""
        space, cable = self._space(name), f"{self._bridge}v{len(self._names)}"
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", self._bridge, "up")
        _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")

    def wait(self, count: int) -> None:
        """Wait until `count` machines have joined."""
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(f"{self.dashboard}/api/v0/nodes?limit=100", headers=headers)
        for _ in range(120):
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    if answer.read().count(b'"state": "ALIVE"') >= count:
                        return
            except OSError:
                pass
            time.sleep(0.5)
        raise TimeoutError("\n".join((self._root / name / "log").read_text()[-500:] for name in self._names))

    def kill(self, name: str) -> None:
        """Kill a machine with all its processes, without a warning."""
        found = subprocess.run(["ip", "netns", "pids", self._space(name)], capture_output=True, text=True).stdout
        subprocess.run(["kill", "-9", *found.split()], check=False, stderr=subprocess.DEVNULL)

    def end(self) -> None:
        for number, name in enumerate(self._names, 1):
            self.kill(name)
            _ip("link", "delete", f"{self._bridge}v{number}")  # half-closed connections would keep it for minutes
            _ip("netns", "delete", self._space(name))
        _ip("link", "delete", self._bridge)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def machines(root: Path, hidden: Path) -> Iterator[Machines]:
    """Context manager of machines, none of them started; ends them all."""
    made = Machines(root, hidden)
    try:
        yield made
    finally:
        made.end()
