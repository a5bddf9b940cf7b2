"""`cluster.gpus` picks devices of this machine as nvidia-smi counts them, among those that the user lets be seen."""

import json
import os
from pathlib import Path

import pytest

from llm4seg.cluster.gpus import choose_gpus
from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from pipelines.stage import run_stage
from tests.params import PARAMS, values

LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5a1fd8a0-0000)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-5b22c3d1-0000)
  MIG 1g.5gb      Device  0: (UUID: MIG-77aa0001-0000)
GPU 3: NVIDIA A100-SXM4-40GB (UUID: GPU-c0ffee00-0000)
"""
ALL = "0, 1, MIG-77aa0001-0000, 3"


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS).override({"cluster.device": "auto"})


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three GPUs, one of them in parts, by an nvidia-smi that lists them; what is set is unset again."""
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n[ $1 = -L ] && cat <<END\n{LISTED}END\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def choose(config: Config, gpus: list[int | str] | None, **changes: str) -> None:
    choose_gpus(
        config.override({"cluster.gpus": gpus} | {f"cluster.{name}": word for name, word in changes.items()}).cluster
    )


def test_none_is_what_is_visible(config: Config) -> None:
    choose(config, None)
    choose(config, [7], device="cpu")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert "CUDA_DEVICE_ORDER" not in os.environ


@pytest.mark.parametrize(
    ("gpus", "shown"),
    [
        ([0], "0"),
        ([3, 1], "3,1"),
        (["GPU-5b22c3d1-0000"], "GPU-5b22c3d1-0000"),
        (["GPU-c0", "MIG-77aa0001-0000"], "GPU-c0,MIG-77aa0001-0000"),
        ([0, "GPU-c0"], "GPU-5a1fd8a0-0000,GPU-c0ffee00-0000"),
    ],
    ids=str,
)
def test_cuda_sees_what_was_chosen_in_this_order(config: Config, gpus: list[int | str], shown: str) -> None:
    choose(config, gpus)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # nvidia-smi's
    choose(config, gpus)  # again in the same process
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown


@pytest.mark.parametrize(
    ("gpus", "found"), [([2], "2"), ([0, 2, 9], "2, 9"), (["GPU-5"], "GPU-5"), (["GPU-ffff"], "GPU-ffff")], ids=str
)
def test_what_is_not_there_or_ambiguous_is_named(config: Config, gpus: list[int | str], found: str) -> None:
    with pytest.raises(InputError, match=rf"^cluster\.gpus: found {found}, allowed: {ALL}$"):
        choose(config, gpus)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("gpus", [[0, "GPU-5a"], ["GPU-c0", "GPU-c0ffee00-0000"]], ids=str)
def test_one_gpu_by_two_names_is_refused(config: Config, gpus: list[int | str]) -> None:
    """CUDA would then see none at all."""
    with pytest.raises(InputError, match=rf"^cluster\.gpus: found {gpus[0]}, {gpus[1]}, allowed: each GPU once$"):
        choose(config, gpus)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("shown", ["1,3", "GPU-5b22c3d1-0000, GPU-c0ffee00", "3,1,-1"])
def test_it_picks_among_what_the_user_shows(config: Config, monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    """Still by nvidia-smi's indices."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    with pytest.raises(InputError, match=r"^cluster\.gpus: found 0, allowed: (1, 3|3, 1) of CUDA_VISIBLE_DEVICES="):
        choose(config, [0, 3])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown
    choose(config, [3])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize("shown", [None, ""])
def test_a_machine_without_gpus(config: Config, monkeypatch: pytest.MonkeyPatch, shown: str | None) -> None:
    if shown is None:
        monkeypatch.setenv("PATH", "/nowhere")  # no driver
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    with pytest.raises(InputError, match=r"cluster\.gpus: found 0, allowed: null, since nvidia-smi lists no GPU"):
        choose(config, [0])


@pytest.mark.parametrize("launcher", ["ray", "process"])
def test_every_stage_begins_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    chosen = {"cluster.launcher": launcher, "cluster.device": "auto", "cluster.gpus": [1]}
    (tmp_path / "params.yaml").write_text(json.dumps(values(chosen)))
    seen: list[str | None] = []
    words = ["--params", str(tmp_path / "params.yaml")]
    run_stage("some", "", lambda config: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES")), words=words)
    assert seen == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SystemExit, match=r"some: cluster\.gpus: found 1, allowed: 0 of CUDA_VISIBLE_DEVICES=0"):
        run_stage("some", "", lambda config: None, words=words)


def test_a_clusters_nodes_give_gpus_themselves(config: Config) -> None:
    with pytest.raises(InputError, match=r"gpus: found \[0\], allowed: null, since address names a cluster"):
        choose(config, [0], address="auto")
