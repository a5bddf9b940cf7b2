"""The node image's recipe, read: its versions are the project's, it has no secret, and its user is not root."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.import_graph import ROOT

TEXT = (ROOT / "infra" / "Dockerfile").read_text(encoding="utf-8")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Each instruction with what follows it, on one line."""
    kept = [line for line in TEXT.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(kept))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def every(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def hadolint(file: Path) -> str:
    program = Path(sys.executable).parent / "hadolint"
    return subprocess.run([program, file], capture_output=True, text=True).stdout


def test_a_linter_finds_nothing(tmp_path: Path) -> None:
    assert hadolint(ROOT / "infra" / "Dockerfile") == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text(TEXT.replace("git=1:2.39.*", "git"))
    assert "DL3008" in hadolint(worse)


def test_only_known_instructions() -> None:
    known = {"ARG", "FROM", "SHELL", "WORKDIR", "COPY", "RUN", "ENV", "USER", "CMD"}
    assert {word for word, _ in instructions()} <= known


def test_python_is_one_that_the_project_allows() -> None:
    (base,) = (one.removeprefix("BASE=") for one in every("ARG") if one.startswith("BASE="))
    found = re.fullmatch(r"python:(3)\.(\d+)\.\d+-slim-\w+", base)  # a patch version, never `latest`
    assert found
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least, below = (tuple(map(int, one.split("."))) for one in re.findall(r"\d+\.\d+", project["requires-python"]))
    assert least <= (int(found[1]), int(found[2])) < below
    assert all(one.partition(" AS ")[0] == "${BASE}" for one in every("FROM"))


def test_packages_come_from_the_lock_as_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (index,) = re.findall(r"^TORCH_CPU_INDEX := (\S+)$", makefile, re.MULTILINE)
    assert f"--index-url {index}" in TEXT
    run = " ".join(every("RUN"))
    assert "-r wanted.txt -c requirements.lock" in run
    assert not re.findall(r"pip install[^&;]*\s[\w-]+==\d", run), "a version beside those of the lock"


def test_the_lock_has_every_dependency_in_one_version() -> None:
    """Else the image would get whatever is newest on the day when it is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if "==" in line)
    names = {_plain(name): found for name, found in locked.items()}
    wanted = {_plain(re.split(r"[\[<>=~!; ]", one)[0]) for one in _wanted(project)}
    assert {"torch", "ray", "dvc"} <= wanted
    assert wanted - set(names) == set()
    assert names["ray"] == version("ray")


def _wanted(project: dict[str, Any]) -> list[str]:
    """What the image's own command writes to wanted.txt, whose extras are those of `all`."""
    (script,) = re.findall(r"python -c '(import tomllib[^']+)'", TEXT)
    listed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    (everything,) = project["optional-dependencies"]["all"]
    extras = everything.removeprefix("llm4seg[").removesuffix("]").split(",")
    of_extras = [one for extra in extras for one in project["optional-dependencies"][extra]]
    assert listed.stdout.splitlines() == [*project["dependencies"], *of_extras]
    return listed.stdout.splitlines()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def test_what_it_copies_is_there_and_in_the_build_context() -> None:
    copied = [one.split()[:-1] for one in every("COPY") if not one.startswith("--from=")]
    files = {name for names in copied for name in names}
    assert {name for name in files if not (ROOT / name).is_file()} == set()
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[1] == "*"  # nothing that is not named: no data, no models, no credentials
    assert {line.removeprefix("!") for line in ignore[2:]} == files


def test_the_last_user_is_not_root_and_kubernetes_can_tell() -> None:
    user = every("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = [word for word, _ in instructions()][[word for word, _ in instructions()].index("USER") :]
    assert set(after) <= {"USER", "WORKDIR", "CMD"}
    number = user.partition(":")[0]
    assert f"useradd --uid {number}" in TEXT
    file = ROOT / "infra" / "kuberay" / "cluster.yaml"
    assert set(re.findall(r"runAsUser: (\d+)", file.read_text(encoding="utf-8"))) == {number}


@pytest.mark.parametrize("name", ["ARG", "ENV"])
def test_no_secret_is_built_in(name: str) -> None:
    """An image's ARG and ENV are there for all who can pull it."""
    named = [word.partition("=")[0] for one in every(name) for word in one.split()]
    assert [one for one in named if SECRET.search(one)] == []


def test_rays_processes_ask_for_the_token() -> None:
    assert any("RAY_AUTH_MODE=token" in one.split() for one in every("ENV"))


def test_what_ends_an_idle_cluster_is_where_the_manifest_looks_for_it() -> None:
    (place,) = (one.split()[-1] for one in every("COPY") if "end_idle.py" in one)
    assert place in (ROOT / "infra" / "kuberay" / "cluster.yaml").read_text(encoding="utf-8")
