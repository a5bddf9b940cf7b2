"""Three nodes that share nothing but the network: each fetches what a run reads, and the result is one process's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from llm4seg.config import Config
from llm4seg.models.saved import WEIGHTS
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import fit
from tests.cluster import Nodes, nodes
from tests.import_graph import ROOT
from tests.integration.test_engines import assert_same
from tests.project import Project
from tests.servers import BUCKET, S3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAMES = ("one", "two", "three")
OBJECTS = "dvc/files/md5"
DRIVER = """
import json, sys
from pathlib import Path
import llm4seg
from llm4seg.config import Config
from pipelines.train import train
assert Path(llm4seg.__file__).is_relative_to(Path.cwd())
train(Config.parse(json.loads(Path("params.json").read_text())))
"""
HIDDEN = """
mount -t tmpfs tmpfs "$1" && cp -a "$2/." "$1" && cd "$1" && exec "$3" driver.py
"""  # a mount in a namespace of its own: no process but this one and its children sees the project


def can_hide() -> bool:
    return subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode == 0


@pytest.fixture
def nodes_config(config: Config, tmp_path: Path, s3: S3) -> Config:
    """A run on three nodes, its project where only the driver will see it, its outputs outside of that."""
    hidden, out = tmp_path / "hidden", tmp_path / "out"
    paths = {name: str(hidden / name) for name in ("prepared", "split", "llm_used", "search")}
    paths |= {name: str(out / name) for name in ("model", "history", "runs", "cache")}
    cluster = {"workers": 3, "placement": "STRICT_SPREAD", "data": "pull", "storage": s3.storage("runs")}
    changes = {"training.epochs": 2, "training.batch_size": 6, "optimizer.name": "sgd", "optimizer.lr": 0.01}
    changes |= {f"paths.{name}": path for name, path in paths.items()}
    return config.override(changes | {f"cluster.{name}": value for name, value in cluster.items()})


@pytest.fixture
def source(workspace: Config, tmp_path: Path, s3: S3) -> Path:
    """The project with its code and data, pushed; to be copied to where the driver sees it."""
    project = Project(tmp_path / "source")
    for package in ("llm4seg", "pipelines"):
        shutil.copytree(ROOT / package, project.folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prepared", "llm_used", "search"):
        shutil.copytree(getattr(workspace.paths, name), project.folder / name)
    shutil.copy(workspace.paths.split, project.folder / "split")
    project.dvc("init", "--no-scm", "--quiet")
    project.dvc("add", "--quiet", "prepared", "llm_used", "split")
    project.dvc("remote", "add", "--default", "store", f"s3://{BUCKET}/dvc")
    project.dvc("remote", "modify", "store", "endpointurl", s3.url)
    project.dvc("push", "--quiet")
    (project.folder / "driver.py").write_text(DRIVER)
    return project.folder


def drive(config: Config, source: Path, tmp_path: Path, cluster: Nodes) -> None:
    """Run stage `train` in a project that no other process sees."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(exist_ok=True)
    here = config.override({"cluster.address": cluster.address})
    (source / "params.json").write_text(json.dumps(here.plain()))
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", HIDDEN, "sh", str(hidden), str(source)]
    done = subprocess.run([*command, sys.executable], env=Project(source).environment, timeout=600)
    assert done.returncode == 0
    assert not list(hidden.iterdir())


@pytest.mark.skipif(not can_hide(), reason="needs mount namespaces")
def test_three_nodes_share_nothing(
    group: None,
    nodes_config: Config,
    workspace: Config,
    source: Path,
    s3: S3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {f"paths.{name}": str(getattr(workspace.paths, name)) for name in ("prepared", "split", "llm_used")}
    alone = LocalRun(tmp_path / "alone")
    undisturbed = fit(nodes_config.override(plain), alone)
    with nodes(tmp_path / "nodes", monkeypatch) as cluster:
        for name in NAMES:
            cluster.add(name)
        drive(nodes_config, source, tmp_path, cluster)
        history = pd.read_csv(nodes_config.paths.history).to_dict("records")
        assert_same(history, undisturbed)
        weights, expected = load_file(nodes_config.paths.model / WEIGHTS), load_file(alone.checkpoint / WEIGHTS)
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)

        got = s3.got(OBJECTS)
        assert sorted(got) == sorted(3 * list(set(got)))  # every object once a node
        caches = [cluster.home(name) / ".cache" / "llm4seg" for name in NAMES]
        layer = next(caches[0].glob("*/layer*"))
        layer.chmod(0o644)
        layer.write_bytes(b"damaged" + layer.read_bytes()[7:])

        drive(nodes_config, source, tmp_path, cluster)
        assert_same(pd.read_csv(nodes_config.paths.history).to_dict("records"), undisturbed)
        again = s3.got(OBJECTS)[len(got) :]
        assert 0 < len(again) == len(set(again)) < len(set(got))  # the damaged part, on one node
