"""A cluster's name stands for one place: a file that says another is refused while the first may still run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from infra.launchers.ray_up import RayUpCluster
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

US = "aws us-east-1"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the last `up` of aws.yaml left; no cloud is reached and nothing may be run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("infra.launchers.ray_up.call", lambda *_: pytest.fail("something ran"))
    there = tmp_path / ".infra" / "llm4seg" / "cluster.yaml"
    there.parent.mkdir(parents=True)
    there.write_text((ROOT / "infra" / "aws.yaml").read_text())
    return there


def cluster(file: str, name: str = "llm4seg", **provider: str) -> RayUpCluster:
    config = yaml.safe_load((ROOT / "infra" / file).read_text())
    return RayUpCluster(Path(file), config | {"cluster_name": name, "provider": config["provider"] | provider})


def with_dashboard(found: RayUpCluster) -> None:
    with found.dashboard():
        pass


def dry(command: str) -> Callable[[RayUpCluster], None]:
    return lambda found: getattr(found, command)(True)


def real(command: str) -> Callable[[RayUpCluster], None]:
    return lambda found: getattr(found, command)(False)


@pytest.mark.parametrize("do", [*map(real, ("up", "down", "status", "attach", "logs")), dry("down"), with_dashboard])
@pytest.mark.parametrize(
    ("found", "where"),
    [
        (lambda: cluster("aws.yaml", region="eu-west-1"), "aws eu-west-1"),
        (lambda: cluster("onprem.yaml"), "local 192.0.2.10"),
    ],
)
def test_another_place_is_refused(
    started: Path, do: Callable[[RayUpCluster], None], found: Callable[[], RayUpCluster], where: str
) -> None:
    before = started.read_text()
    with pytest.raises(InputError) as refused:
        do(found())
    for named in (f"provider: found {where}", ".infra/llm4seg/cluster.yaml", f"llm4seg in {US}"):
        assert named in str(refused.value)
    assert started.read_text() == before, "the only trace of what runs"


def test_our_files_are_of_different_clusters() -> None:
    files = [yaml.safe_load((ROOT / "infra" / f"{name}.yaml").read_text()) for name in ("aws", "onprem")]
    assert len({config["cluster_name"] for config in files}) == len(files)
