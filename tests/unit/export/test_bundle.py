"""MONAI bundles: run by monai.bundle in a process that cannot import this package, against `predict`."""

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

import llm4seg
from llm4seg import cli
from llm4seg.utils.files import read_json
from tests.lesion_volumes import prepare_lesions
from tests.saved_model import save_random_model

pytest.importorskip("ignite")
pytest.importorskip("fire")
RUN = "import runpy, sys; sys.modules['llm4seg'] = None\n"
RUN += "sys.argv = ['monai.bundle', 'run', '--config_file', 'configs/' + sys.argv[1]]\n"
RUN += "runpy.run_module('monai.bundle', run_name='__main__')"
KINDS = {
    "volumes in patches": {"model.bottleneck": "identity"},
    "slices": {"data.spatial_dims": 2, "data.grid": "resize", "data.size": [32, 32], "data.intensity": "zscore"},
}


def run_bundle(folder: Path, config: str) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, config], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    return 2 * float((predicted & reference).sum()) / float(predicted.sum() + reference.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_writes_and_scores_the_models_masks(kind: str, tmp_path: Path) -> None:
    config = prepare_lesions(tmp_path / "lesions", KINDS[kind] | {"search.trials": 0})
    model, folder = save_random_model(config), tmp_path / "bundle"
    cli.main(["export", str(model), "--to", "bundle", "-o", str(folder)])
    assert read_json(folder / "configs" / "metadata.json")["task"] == "segmentation"
    images = sorted((config.data.root / "images").iterdir())[:2]
    for inner, files in (("images", images), ("labels", [config.data.root / "masks" / one.name for one in images])):
        (folder / "data" / inner).mkdir(parents=True)
        for file in files:
            (folder / "data" / inner / file.name).write_bytes(file.read_bytes())
    run_bundle(folder, "inference.json")
    run_bundle(folder, "evaluate.json")
    table = pd.read_csv(next((folder / "eval").glob("val_mean_dice_raw.csv")), sep=None, engine="python")
    loaded = llm4seg.load(model)
    for row, image in enumerate(images):
        written = nibabel.load(folder / "eval" / image.name.replace(".nii.gz", "_mask.nii.gz"))
        wanted = loaded.predict(image)
        assert set(np.unique(wanted)) >= {1, 2}
        assert np.allclose(written.affine, nibabel.load(image).affine)
        assert (np.asarray(written.dataobj).squeeze() != wanted).mean() < 1e-3
        reference = np.asarray(nibabel.load(config.data.root / "masks" / image.name).dataobj)
        for label in (1, 2):
            assert table.iloc[row, label] == pytest.approx(dice(wanted == label, reference == label), abs=2e-3)
