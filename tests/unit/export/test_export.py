"""Exported networks: run by onnxruntime and by torch.export, against the model; and without this package."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import llm4seg
from llm4seg import cli
from llm4seg.config import Config
from llm4seg.export import export as exporting
from llm4seg.export.export import export_network
from llm4seg.export.formats import Exported, read_pt2
from llm4seg.utils.files import read_json
from tests.import_graph import ROOT
from tests.lesion_volumes import prepare_lesions
from tests.saved_model import save_random_model

pytest.importorskip("onnxruntime")
ALONE = "import sys, runpy\nfor name in ('torch', 'llm4seg', 'scipy', 'onnx'): sys.modules[name] = None\n"
ALONE += "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"


def run_alone(*words: Path) -> subprocess.CompletedProcess[str]:
    """Run docs/run_onnx.py where nothing but onnxruntime and NumPy can be imported."""
    command = [sys.executable, "-c", ALONE, str(ROOT / "docs" / "run_onnx.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_onnx_is_run_without_this_package(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = save_random_model(config), tmp_path / "net.onnx"
    described = read_json(folder / "model.json")
    described["llm"]["licence"] = "Apache-2.0"
    (folder / "model.json").write_text(json.dumps(described))
    image = np.random.default_rng(0).normal(100, 30, (1, 44, 50, 3)).astype(np.float32)
    image[0, 10:25, 10:30] += 90
    image[..., 1] = 7
    np.save(tmp_path / "image.npy", image)
    cli.main(["export", str(folder), "--to", "onnx", "-o", str(file)])
    shown = capsys.readouterr().out
    assert "labels equal (a synthetic case)" in shown
    assert f"{file} holds layer 1 of llama; its license: Apache-2.0\n" in shown
    done = run_alone(file, tmp_path / "image.npy", tmp_path / "mask.npy")
    assert done.returncode == 0, done.stderr
    mask, wanted = np.load(tmp_path / "mask.npy"), llm4seg.load(folder).predict(image)
    assert (mask.shape, set(np.unique(wanted))) == (wanted.shape, {0, 1, 2})
    assert (mask != wanted).mean() < 1e-3  # SciPy's and these sums are rounded otherwise
    about = read_json(file.with_suffix(".json"))
    assert about["preprocessing"]["size"] == [32, 32]
    assert about["labels"]["classes"] == ["lesion 1", "lesion 2"]
    assert about["llm"] == {"source": "llama", "revision": None, "license": "Apache-2.0", "layers": [1]}


def test_pt2_of_volumes_in_patches_is_checked_on_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = prepare_lesions(tmp_path, {"model.bottleneck": "identity", "search.trials": 0})
    folder, file = save_random_model(config), tmp_path / "net.pt2"
    image = next(iter(sorted((config.data.root / "images").iterdir())))
    cli.main(["export", str(folder), "--to", "pt2", "-o", str(file), "--check", str(image)])
    shown = capsys.readouterr().out
    assert f"labels equal ({image})" in shown
    assert "holds no layer of an LLM" in shown
    program = torch.export.load(str(file)).module()
    images = torch.rand(3, *read_json(file.with_suffix(".json"))["input"]["shape"][1:])
    with torch.no_grad():
        torch.testing.assert_close(program(images), llm4seg.load(folder).module(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [lambda logits: logits + 0.01, lambda logits: logits.flip(1)])
def test_a_file_that_differs_from_the_model_is_not_written(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    model = llm4seg.load(save_random_model(config.override({"model.bottleneck": "identity"})))
    write, _ = exporting.FORMATS["pt2"]

    def read(file: Path) -> Exported:
        return Exported(lambda images_NCS: change(read_pt2(file)(images_NCS)))

    monkeypatch.setitem(exporting.FORMATS, "pt2", (write, read))
    with pytest.raises(llm4seg.InputError, match=r"differs from the model: found logits .* apart, allowed: 0\.0001"):
        export_network(model, "pt2", tmp_path / "net.pt2")
    assert not (tmp_path / "net.pt2").exists()


def test_what_cannot_be_exported_says_why(config: Config, tmp_path: Path) -> None:
    folder = save_random_model(config.override({"model.llm.dtype": "bf16"}))
    with pytest.raises(SystemExit) as raised:
        cli.main(["export", str(folder), "--to", "onnx", "-o", str(tmp_path / "net.onnx")])
    reason = str(raised.value)
    assert reason.startswith("export: the model cannot be exported to onnx: NotImplemented: ")
    assert reason.endswith("; --to pt2 may do")
    assert "\n" not in reason
    with pytest.raises(llm4seg.InputError, match="module: found an ensemble of 2, allowed: one model"):
        export_network(llm4seg.load([folder, folder]), "pt2", tmp_path / "net.pt2")
