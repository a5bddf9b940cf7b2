"""`llm4seg predict`: folders in and out, finished cases, broken files, options; Ctrl-C of the real command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

import llm4seg
from llm4seg import cli
from llm4seg.predict import run
from llm4seg.predict.model import SegmentationModel
from llm4seg.predict.records import case_digest
from llm4seg.predict.run import in_thread
from tests.dicom import itk_image
from tests.import_graph import ROOT

Printed = pytest.CaptureFixture[str]


def predict(*words: str | Path) -> int:
    """The exit code of the command."""
    try:
        cli.main(["predict", *map(str, words)])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else pytest.fail(str(end.code))
    return 0


@pytest.fixture
def scans(slices_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(slices_model.parents[1] / "raw" / "images", tmp_path / "scans")
    (tmp_path / "scans" / "deep").mkdir()
    (tmp_path / "scans" / "case-3.nii.gz").rename(tmp_path / "scans" / "deep" / "case-3.nii.gz")
    return tmp_path / "scans"


def masks(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.nii.gz")}


def test_a_folder(slices_model: Path, scans: Path, tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "out"
    assert predict(slices_model, "-i", scans, "-o", out, "--overlay", "--probabilities") == 0
    assert "4 of 4 masks are in" in capsys.readouterr().out
    model = llm4seg.load(slices_model)
    table = pd.read_csv(out / "volumes.csv").set_index(["case", "class"])
    assert [*table.columns] == ["count", "size", "unit"]
    for name in ("case-0", "case-1", "case-2", "deep/case-3"):
        image, mask = nibabel.load(scans / f"{name}.nii.gz"), nibabel.load(out / f"{name}.nii.gz")
        labels = np.asarray(mask.dataobj)
        assert np.array_equal(labels, model.predict(scans / f"{name}.nii.gz"))
        assert np.array_equal(mask.affine, image.affine)
        probabilities = model.predict_probabilities(scans / f"{name}.nii.gz")
        for place, label in enumerate(("dark", "bright")):
            row = table.loc[(name, label)]
            assert (row["count"], row["unit"]) == ((labels == place + 1).sum(), "ml")
            assert row["size"] == pytest.approx(row["count"] * np.prod(image.header.get_zooms()) / 1000, rel=1e-5)
            written = nibabel.load(out / "probabilities" / name / f"{place + 1}-{label}.nii.gz")
            np.testing.assert_allclose(written.get_fdata(), probabilities[place], atol=1e-5)
        picture = Image.open(out / "overlays" / f"{name}.png")
        assert picture.width == 825
        assert len(np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    assert len(table) == 8
    assert not [path for path in out.rglob("*") if "partial" in path.name]


def test_finished_cases_are_left_and_changed_ones_are_not(
    slices_model: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    out, model = tmp_path / "out", tmp_path / "model"
    shutil.copytree(slices_model, model)
    done: list[str] = []
    before = SegmentationModel.predict_labels
    spy = lambda self, one: done.append(Path(one.source).name[:6]) or before(self, one)  # noqa: E731
    monkeypatch.setattr(SegmentationModel, "predict_labels", spy)

    def again(*options: str) -> list[str]:
        done.clear()
        assert predict(model, "-i", scans, "-o", out, *options) == 0
        return sorted(done)

    assert again() == ["case-0", "case-1", "case-2", "case-3"]
    first = masks(out)
    capsys.readouterr()
    assert again() == []
    assert "4 of 4 were finished before and are left as they are" in capsys.readouterr().out
    (out / "case-1.nii.gz").unlink()  # or a run that was broken off
    (out / ".predict" / "case-2.json").write_text("{")
    assert again() == ["case-1", "case-2"]
    assert masks(out) == first
    shutil.copyfile(scans / "case-0.nii.gz", scans / "deep" / "case-3.nii.gz")
    assert again() == ["case-3"]
    assert again("--overlap", "0.25") == ["case-0", "case-1", "case-2", "case-3"]
    description = json.loads((model / "model.json").read_text(encoding="utf-8"))
    (model / "model.json").write_text(json.dumps(description | {"git_commit": "another"}), encoding="utf-8")
    assert again("--overlap", "0.25") == ["case-0", "case-1", "case-2", "case-3"]


def test_masks_of_another_model_are_not_taken_for_finished(
    slices_model: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of another model that is broken off while it writes leaves none of the first one's records of this case."""
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(slices_model, other)
    (other / "model.json").write_text((other / "model.json").read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert predict(slices_model, "-i", scans, "-o", out) == 0
    with monkeypatch.context() as context:
        context.setattr(run, "volume_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert predict(other, "-i", scans, "-o", out) == 130
    assert not (out / ".predict" / "case-0.json").exists()


def test_broken_files_are_named_at_the_end(slices_model: Path, scans: Path, tmp_path: Path, capsys: Printed) -> None:
    out = tmp_path / "out"
    assert predict(slices_model, "-i", scans, "-o", out) == 0
    whole = (scans / "case-1.nii.gz").read_bytes()
    (scans / "case-1.nii.gz").write_bytes(whole[:-100])
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(scans / "colors.png")
    capsys.readouterr()
    assert predict(slices_model, "-i", scans, "-o", out) == 1
    said = capsys.readouterr()
    assert f"predict: failed: {scans}/case-1.nii.gz: cannot be read as an image: damaged" in said.err
    assert f"predict: failed: {scans}/colors.png: found 3 channels, allowed: 1" in said.err
    assert "3 of 5 masks are in" in said.out
    assert set(masks(out)) == {"case-0.nii.gz", "case-2.nii.gz", "deep/case-3.nii.gz"}  # none of an earlier image
    assert set(pd.read_csv(out / "volumes.csv")["case"]) == {"case-0", "case-2", "deep/case-3"}
    (scans / "case-1.nii.gz").write_bytes(whole)
    (scans / "colors.png").unlink()
    (out / "deep").rename(out / "away")
    (out / "deep").write_text("a file where a folder must be")  # so that nothing can be written there
    assert predict(slices_model, "-i", scans, "-o", out) == 1
    assert f"failed: {scans}/deep/case-3.nii.gz: [Errno " in capsys.readouterr().err
    (out / "deep").unlink()
    (out / "away").rename(out / "deep")
    assert predict(slices_model, "-i", scans, "-o", out) == 0


def test_a_file_in_other_formats(pictures_model: Path, tmp_path: Path) -> None:
    source = pictures_model.parents[1] / "raw" / "images" / "0.png"
    for words in ([], ["--format", "mha", "--spacing", "0.5,0.25"], ["--format", "nifti"]):
        assert predict(pictures_model, "-i", source, "-o", tmp_path, *words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"0.png", "0.mha", "0.nii.gz", ".predict", "volumes.csv"}
    row = pd.read_csv(tmp_path / "volumes.csv").iloc[0]
    assert (row["size"], row["unit"]) == (row["count"], "px")  # of the last, without a spacing
    labels = np.array(Image.open(tmp_path / "0.png"))
    assert predict(pictures_model, "-i", source, "-o", tmp_path, "--format", "mha", "--spacing", "0.5,0.25") == 0
    row = pd.read_csv(tmp_path / "volumes.csv").iloc[0]
    assert (row["count"], row["unit"]) == ((labels == 1).sum(), "mm2")
    assert row["size"] == pytest.approx(row["count"] * 0.125)


def test_options_are_those_of_load(slices_model: Path, scans: Path, tmp_path: Path) -> None:
    source = scans / "case-0.nii.gz"
    options = {"overlap": 0.25, "tta": (0,), "postprocess": ("largest:bright", "min:4"), "dtype": "bfloat16"}
    expected = llm4seg.load(slices_model, **options).predict(source)
    words = ["--overlap", "0.25", "--tta", "0", "--postprocess", "largest:bright,min:4", "--dtype", "bfloat16"]
    assert predict(slices_model, "-i", source, "-o", tmp_path / "out", *words) == 0
    found = np.asarray(nibabel.load(tmp_path / "out" / "case-0.nii.gz").dataobj)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, llm4seg.load(slices_model).predict(source))


def test_what_is_refused_before_anything_is_written(pictures_model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(pictures_model.parents[1] / "raw" / "images", images)
    for words, reason in (
        (("-i", images, "-o", images), "0.png: its mask would replace this image; allowed: another folder"),
        (("-i", images, "-o", images / "0.png"), "0.png: is a file, allowed: a folder for the masks"),
        (("-i", tmp_path / "none", "-o", tmp_path / "out"), "none: no such file or folder"),
        (("-i", images, "-o", tmp_path / "out", "--format", "dicom-seg"), "is no DICOM, whose series"),
        (("-i", images, "-o", tmp_path / "out", "--device", "abacus"), "device: found .abacus., allowed: cpu"),
    ):
        with pytest.raises(SystemExit, match=reason):
            cli.main(["predict", str(pictures_model), *map(str, words)])
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_spacing_that_is_no_numbers(tmp_path: Path, capsys: Printed) -> None:
    assert predict("model", "-i", tmp_path, "-o", tmp_path / "out", "--spacing", "0.5mm,0.5mm") == 2
    assert "argument --spacing: found 0.5mm,0.5mm, allowed: mm as in 0.5,0.5,2" in capsys.readouterr().err


def test_pixels_beside_their_header_count(tmp_path: Path) -> None:
    sitk.WriteImage(itk_image(np.eye(3)), tmp_path / "a.mhd")
    before = case_digest([tmp_path / "a.mhd"], "model")
    assert case_digest([tmp_path / "a.mhd"], "model") == before != case_digest([tmp_path / "a.mhd"], "another")
    content = (tmp_path / "a.raw").read_bytes()
    (tmp_path / "a.raw").write_bytes(content[::-1])
    assert case_digest([tmp_path / "a.mhd"], "model") != before


def test_one_case_is_computed_beside_another_where_there_is_room() -> None:
    running: list[int] = []

    def function(item: int) -> int:
        running.append(item)
        return item * item

    for ahead in (True, False):
        running.clear()
        seen = []
        for result in in_thread(function, range(4), lambda _, ahead=ahead: ahead):
            time.sleep(0.05)
            seen.append((result, max(running)))
        assert [result for result, _ in seen] == [0, 1, 4, 9]
        assert [latest for _, latest in seen] == ([1, 2, 3, 3] if ahead else [0, 1, 2, 3])


def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(pictures_model: Path, tmp_path: Path) -> None:
    """The command in a process of its own."""
    pixels = np.random.default_rng(0).integers(0, 255, (200, 240)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    for number in range(400):
        Image.fromarray(np.roll(pixels, number)).save(tmp_path / "in" / f"{number:03d}.png")
    command = [sys.executable, "-m", "llm4seg.cli", "predict", pictures_model, "-i", "in", "-o", "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    while not [*(tmp_path / "out").glob("*.png")] and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert said.strip().endswith("predict: interrupted; the same command goes on where it stopped")
    written = sorted((tmp_path / "out").glob("*.png"))
    assert 0 < len(written) < 400
    assert all(Image.open(path).size == (240, 200) for path in written)
    assert not [path for path in (tmp_path / "out").rglob("*") if "partial" in path.name]
    for path in sorted((tmp_path / "in").iterdir())[len(written) + 2 :]:
        path.unlink()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(written)} of {len(written) + 2} were finished before" in done.stdout
