"""What is missing is said in one line each, with the remedy, before any work."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import torch

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from pipelines.doctor import check, problems, remarks
from tests.finished_run import raw_case, write_cases
from tests.import_graph import ROOT
from tests.lesion_volumes import VOLUMES
from tests.tiny import tiny_config
from tests.volume_layouts import save as save_volume


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(ROOT / "params.yaml").override({"cluster.device": "auto"})


def without(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in programs else f"/usr/bin/{name}")


def test_the_default_job_needs_no_compiler(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "g++", "ninja", "nvidia-smi")
    check(config)


@pytest.mark.parametrize(
    ("precision", "name", "capability", "words"),
    [
        ("bf16", "Tesla T4", (7, 5), "bf16 is only emulated by Tesla T4 (compute capability 7.5, of 8.0 that have it)"),
        ("bf16", "A100", (8, 0), None),
        ("fp16", "Tesla V100", (7, 0), None),
        ("fp16", "H100", (9, 0), "fp16 is for GPUs without bf16; H100 has bf16"),
        ("fp32", "Tesla T4", (7, 5), None),
    ],
)
def test_a_precision_that_the_gpu_has_not_is_said_and_not_refused(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    name: str,
    capability: tuple[int, int],
    words: str | None,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    check(config.override({"engine.precision": precision}))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (words is not None)
    assert words is None or words in lines[0]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_half_precision_of_volumes_is_slow_on_a_cpu(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    volumes = config.override(config.presets["demo-3d"] | {"cluster.device": device})
    check(volumes)
    check(config.override({"engine.precision": "bf16", "cluster.device": device}))
    assert not capsys.readouterr().out
    check(volumes.override({"engine.precision": "bf16"}))
    assert "bf16 is slow for volumes on a CPU" in capsys.readouterr().out


def test_git(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "git")
    assert list(problems(config)) == ["git is missing: apt-get install git"]


def test_disk(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 5 * 10**8))
    _, found = problems(config.override({"paths.model": str(tmp_path / "not" / "there" / "yet")}))
    assert found.startswith(f"{tmp_path}: 0.5 GB are free and 2 GB are needed: make room; for another disk: clone the")


def test_outputs_on_another_disk(config: Config, tmp_path: Path) -> None:
    anywhere = {f"paths.{name}": str(tmp_path / name) for name in ("cache", "runs", "study_runs")}
    check(config.override(anywhere))
    (found,) = problems(config.override(anywhere | {"paths.prepared": str(tmp_path / "prepared")}))
    assert found.startswith(
        f"paths.prepared: found {tmp_path}/prepared, allowed: a path in {ROOT}, outside of which DVC"
    )
    assert "paths.cache and paths.runs and paths.study_runs and paths.tracking may be anywhere" in found
    assert "`dvc cache dir --local /OTHER/DISK` and `dvc config --local cache.type symlink`" in found


def test_no_folder_for_sockets(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + 50 * "x")
    monkeypatch.setattr("llm4seg.cluster.local_ray.SHORT", ("/proc",))
    (found,) = problems(config)
    assert found.startswith("RAY_TMPDIR: found /tmp/xxx")
    check(config.override({"cluster.launcher": "process"}))  # needs none


def test_a_read_only_home_is_no_place_to_compile_in(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)  # which would look at access, too
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    config = config.override({"cluster.launcher": "process"})
    check(config)
    (found,) = problems(config.override({"engine.name": "deepspeed"}))
    assert found.endswith("cannot be written, where DeepSpeed compiles its operators: set TORCH_EXTENSIONS_DIR")


@pytest.mark.parametrize(
    ("changes", "module", "line"),
    [
        (
            {"model.backbone": "smp"},
            "segmentation_models_pytorch",
            "model.backbone: smp: pip install 'llm4seg[smp]' beside the CUDA build of torch",
        ),
        (
            {"cluster.launcher": "ray"},
            "ray",
            "cluster.launcher: ray (process needs none) needs ray, which is not installed: "
            "pip install 'llm4seg[cluster]'",
        ),
        (
            {"engine.name": "deepspeed"},
            "deepspeed",
            "engine.name: deepspeed needs deepspeed, which is not installed: pip install 'llm4seg[cluster]'",
        ),
        (
            {"data.dataset": "lung-ct"},
            "pydicom",
            "data.dataset: lung-ct needs pydicom, which is not installed: pip install 'llm4seg[dicom]'",
        ),
        (
            {"cluster.launcher": "ray", "cluster.data": "pull", "cluster.storage": "s3://bucket"},
            "dvc",
            "cluster.data: pull needs dvc, which is not installed: pip install 'llm4seg[dvc]'",
        ),
    ],
)
def test_a_package_of_an_extra(
    changes: dict[str, str], module: str, line: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm4seg.utils.extras.find_spec", lambda name: None if name == module else object())
    config = config.override({"cluster.launcher": "process"})
    assert list(problems(config.override(changes))) == [line]
    assert not list(problems(config))


def test_offload_to_nvme_needs_a_compiler(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "g++")
    nvme = config.override({"engine.zero": 3, "engine.offload": "nvme", "cluster.nvme": "/tmp"})
    assert "engine.offload: nvme needs a C++ compiler: apt-get install g++" in next(problems(nvme))
    assert not list(problems(nvme.override({"cluster.address": "ray://10.0.0.1:10001"})))  # not this machine's job


def test_compiling_the_model_needs_a_compiler(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "g++")
    (found,) = problems(config.override({"engine.compile": True}))
    assert found == "engine.compile: true needs a C++ compiler: apt-get install g++, or engine.compile: false"


@pytest.mark.parametrize(
    ("build", "remedy"), [(None, "make repro TORCH=cuda"), ("13.0", "torch sees no GPU: check `nvidia-smi`")]
)
def test_cuda(config: Config, monkeypatch: pytest.MonkeyPatch, build: str | None, remedy: str) -> None:
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (found,) = problems(config.override({"cluster.device": "cuda"}))
    assert found.startswith("cluster.device: cuda, but")
    assert remedy in found


def test_everything_missing_is_said_at_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "git", "g++")
    nvme = config.override({"engine.zero": 3, "engine.offload": "nvme", "cluster.nvme": "/tmp"})
    with pytest.raises(InputError, match=r"git is missing.*\ndoctor: engine.offload: nvme needs a C\+\+ compiler"):
        check(nvme)


@pytest.mark.parametrize("spacing", ["auto", [0.5, 1, 3]])
def test_volumes_larger_than_memory_by_their_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spacing: str | list[float]
) -> None:
    """Before the first `prepare`; an archive, or what is no data set, is left to it."""
    for kind in ("images", "masks"):
        save_volume(tmp_path / "raw" / kind / "a.nii.gz", np.ones((64, 32, 16), np.uint8), "RAS")
    root = {"data.root": str(tmp_path / "raw"), "data.spacing": spacing}
    config = tiny_config(tmp_path).override(VOLUMES | root)
    assert not [line for line in problems(config) if "data.spacing" in line]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    (found,) = [line for line in problems(config) if "data.spacing" in line]
    assert found.startswith("data.spacing: found auto, [" if spacing == "auto" else "data.spacing: found [1.0, 0.5")
    assert "at which a.nii.gz has " in found
    (tmp_path / "raw" / "masks" / "a.nii.gz").unlink()
    assert not [line for line in problems(config) if "a.nii.gz" in line]


def test_volumes_larger_than_memory(tmp_path: Path) -> None:
    """Of data that were prepared before: the next `prepare` would end after it has read them all."""
    case = raw_case("wide", np.ones((24, 24, 12)), np.random.default_rng(0).integers(1, 9, (1, 24, 24, 12)))
    config = tiny_config(tmp_path).override(VOLUMES | {"data.spacing": [1, 1, 1], "data.classes": None})
    write_cases(config, [case], ["lesion"])
    assert not [line for line in problems(config) if "data.spacing" in line]
    fine = 1e-3 * 24 / psutil.virtual_memory().available ** (1 / 3)
    (found,) = [line for line in problems(config.override({"data.spacing": [fine] * 3})) if "data.spacing" in line]
    assert "allowed: a coarser one" in found


def test_slices_that_were_prepared_before_are_no_volumes(tmp_path: Path) -> None:
    case = raw_case("flat", np.ones((24, 24)), np.random.default_rng(0).integers(1, 9, (1, 24, 24)))
    config = tiny_config(tmp_path)
    write_cases(config, [case], ["lesion"])
    volumes = config.override(VOLUMES | {"data.spacing": [1, 1, 1], "data.classes": None})
    assert not [line for line in problems(volumes) if "data.spacing" in line]


@pytest.mark.parametrize(
    ("free_gb", "changes", "words"),
    [
        (1.5, {}, "cluster.launcher: process takes "),
        (1.5, {"cluster.workers": 2}, "fewer cluster.workers take less"),
        (1.5, {"search.trials": 4}, "fewer cluster.workers take less"),
        (2.5, {"cluster.workers": 2}, "fewer cluster.workers take less"),
        (2.8, {}, None),
        (1.5, {"cluster.launcher": "process"}, None),
        (1.5, {"cluster.address": "auto"}, None),
    ],
)
def test_little_memory_for_ray_is_said_and_not_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch, free_gb: float, changes: dict[str, Any], words: str | None
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(free_gb * 1e9)))
    monkeypatch.setattr("llm4seg.runtime.device.CGROUP", Path("/nowhere"))
    monkeypatch.setattr("pipelines.doctor.MEMORY_LIMIT", Path("/nowhere"))
    said = list(remarks(config.override(changes)))
    assert len(said) == (words is not None)
    assert words is None or (said[0].startswith(f"{free_gb} GB of memory are free, and Ray") and words in said[0])


def test_a_containers_limit_counts(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{10**9}\n")
    (tmp_path / "memory.current").write_text("0\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    monkeypatch.setattr("pipelines.doctor.MEMORY_LIMIT", tmp_path / "memory.max")
    monkeypatch.setattr("llm4seg.runtime.device.CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    (line,) = remarks(config)
    assert line.startswith("1.0 GB of memory are free")
    (tmp_path / "memory.max").write_text("max\n")
    assert list(remarks(config)) == []
