"""The stages `prepare` and `split` as a user runs them: real datasets, a full disk, an interruption."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.datasets.brain import TEMPLATE
from llm4seg.utils.errors import InputError
from llm4seg.utils.pypi import package_file
from pipelines.prepare import prepare
from pipelines.split import split
from tests.tiny import PARAMS

PHANTOM = {"data.dataset": "phantom", "data.phantom.cases": 12, "data.phantom.patients": 6}
FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.argv = ["prepare", "--params", sys.argv[1]]
runpy.run_module("pipelines.prepare", run_name="__main__")
"""


def write_params(root: Path, **changes: Any) -> Config:
    """The project's params.yaml with some values changed, in a folder of its own; downloads are shared."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["paths"]["cache"] = str(Config.load(PARAMS).paths.cache)
    for dotted, value in changes.items():
        *parents, name = dotted.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[name] = value
    (root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return Config.load(root / "params.yaml")


def run(root: Path, stage: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"pipelines.{stage}", "--params", str(root / "params.yaml")]
    return subprocess.run(command, capture_output=True, text=True, cwd=PARAMS.absolute().parent)


def prepared_by(root: Path, **changes: Any) -> Prepared:
    """What the stage makes, in this process."""
    config = write_params(root, **changes)
    prepare(config)
    return Prepared(config.paths.prepared)


def test_brain_mri(tmp_path: Path) -> None:
    config = write_params(tmp_path)
    done = run(tmp_path, "prepare")
    assert done.returncode == 0, done.stderr
    assert "one average brain: a demonstration, not evidence" in done.stdout
    prepared = Prepared(config.paths.prepared)
    assert prepared.classes == ("cortex", "deep grey nuclei", "medial temporal", "brainstem")
    assert len(prepared.cases) == 180
    assert_atlas_lies_on_brain(prepared)
    assert_slices_are_coronal(prepared, config.paths.cache)
    assert run(tmp_path, "split").returncode == 0
    parts = read_split(config.paths.split)
    assert "blocks of 6 slices" in parts.rule
    assert min(len(parts.train) - 80, len(parts.val) - 20, len(parts.test) - 25) > 0
    lock = yaml.safe_load(PARAMS.with_name("dvc.lock").read_text())
    committed = lock["stages"]["split"]["outs"][0]["md5"]
    assert hashlib.md5(config.paths.split.read_bytes()).hexdigest() == committed


def assert_atlas_lies_on_brain(prepared: Prepared) -> None:
    """Labels lie on tissue, left and right are balanced, the brainstem is low, the cortex reaches the top."""
    image, labels = (tensor.numpy() for tensor in prepared.original("mni152-080"))
    assert (image[0][labels > 0] > 0).mean() > 0.99
    rows, columns = np.nonzero(labels == 4)
    assert rows.mean() > 0.6 * labels.shape[0]
    assert columns.mean() == pytest.approx(labels.shape[1] / 2, abs=4)
    assert np.nonzero(labels == 1)[0].min() < 12


def assert_slices_are_coronal(prepared: Prepared, cache: Path) -> None:
    """They are the template's, oriented by its affine and without its margins: as a file of it is predicted."""
    assert (prepared.view, prepared.cropped) == ("coronal", True)
    file = nibabel.load(package_file(*TEMPLATE, cache))
    to_back = nibabel.orientations.axcodes2ornt("IRA")  # rows run down, columns to the right, slices to the front
    change = nibabel.orientations.ornt_transform(nibabel.orientations.io_orientation(file.affine), to_back)
    array = nibabel.orientations.apply_orientation(np.asanyarray(file.dataobj), change)
    inside = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(array))
    for case_id, case in prepared.cases.items():
        assert np.array_equal(prepared.original(case_id)[0][0].numpy(), array[inside][..., case.position])


def test_lung_ct(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = prepared_by(tmp_path, **{"data.dataset": "lung-ct", "data.intensity": "window"})
    assert "CC BY-NC 3.0" in capsys.readouterr().out
    assert "CC BY-NC 3.0" in prepared.license
    with_tumour = [case for case in prepared.cases.values() if case.pixels["tumour"]]
    assert (len(prepared.cases), len(with_tumour)) == (203, 68)
    assert {case.group for case in prepared.cases.values()} == {"pat_1", "pat_2", "pat_3", "pat_4"}
    image, labels = (tensor.numpy() for tensor in prepared.original("pat_4-026"))
    assert -150 < np.median(image[0][labels > 0]) < 150  # soft tissue, in Hounsfield units, amid lung
    content = b"".join(path.read_bytes() for path in prepared.folder.iterdir())
    for identifier in (b"PAT1", b"1.3.6.1.4.1.9590"):
        assert identifier not in content
    config = Config.load(tmp_path / "params.yaml")
    split(config)
    parts = read_split(config.paths.split)
    patients = [{case_id[:5] for case_id in part} for part in (parts.train, parts.val, parts.test)]
    assert sorted(map(len, patients)) == [1, 1, 2]


@pytest.mark.parametrize("dataset", ["brain-mri", "lung-ct", "phantom"])
def test_volumes(tmp_path: Path, dataset: str) -> None:
    three = {"data.spatial_dims": 3, "data.size": [32, 32, 16], "data.phantom.size": [24, 20, 16]}
    prepared = prepared_by(tmp_path, **PHANTOM | three | {"data.dataset": dataset})
    for case_id, case in prepared.cases.items():
        assert len(case.shape) == len(case.spacing) == 3
        assert case.volume is None
        assert prepared.resampled(case_id)[0].shape == (1, 32, 32, 16)
        assert prepared.resampled(case_id)[1].any()


def test_a_second_run_gives_equal_bytes(tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        prepared = prepared_by(tmp_path, **PHANTOM)
        split(Config.load(tmp_path / "params.yaml"))
        return {path.name: path.read_bytes() for path in [*prepared.folder.iterdir(), tmp_path / "data" / "split.json"]}

    assert contents() == contents()


def test_a_bad_input_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "raw" / "images"
    config = write_params(tmp_path, **{"data.dataset": "folder"})
    with pytest.raises(InputError) as raised:
        prepare(config)
    assert str(raised.value) == f"{folder}: no such folder (data.root must hold images/ and masks/)"


def test_a_full_disk_leaves_the_last_good_output(tmp_path: Path) -> None:
    before = prepared_by(tmp_path, **PHANTOM)
    write_params(tmp_path, **PHANTOM | {"data.phantom.seed": 1})
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "params.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PARAMS.absolute().parent)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("prepare: grid-000.safetensors: ")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert_only_and_unchanged(before, tmp_path)


def test_an_interruption_leaves_the_last_good_output(tmp_path: Path) -> None:
    before = prepared_by(tmp_path, **PHANTOM)
    write_params(tmp_path, **PHANTOM | {"data.phantom.cases": 100_000})
    command = [sys.executable, "-m", "pipelines.prepare", "--params", str(tmp_path / "params.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=PARAMS.absolute().parent)
    partial = tmp_path / "data" / ".prepared.partial"
    while not partial.is_dir() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "prepare: interrupted; the last good outputs are untouched"
    assert_only_and_unchanged(before, tmp_path)


def assert_only_and_unchanged(before: Prepared, root: Path) -> None:
    assert [path.name for path in (root / "data").iterdir()] == ["prepared"]
    manifest = json.loads((before.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sha256"] == before.sha256
    for case_id in before.cases:
        before.resampled(case_id)
