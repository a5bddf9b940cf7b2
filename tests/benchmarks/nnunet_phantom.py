"""nnU-Net 3d_fullres on the patients of tests.benchmarks.lesion_training, for the same CPU seconds and the same split.

nnU-Net is no dependency: this runs in an environment of its own, for example

    python3.11 -m venv nnunet && nnunet/bin/pip install torch==2.13.0 nnunetv2==2.8.1

in the folder of this project, after tests.benchmarks.lesion_training has left phantom/ and the split in FOLDER.

"own" is the plan that nnU-Net makes. "ours" is that plan with the patch, the batch and the channels of our U-Net, and
nnU-Net's own kernels and strides in these levels. Its trainer takes its own steps; what differs is when it stops: the
learning rate falls as its polynomial over the CPU seconds, not over 1000 epochs. Five of its validation patches follow
25 steps, in its proportion, and count; neither preprocessing nor the prediction of the test patients does.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import nibabel
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from scipy import ndimage

NUMBER, NAME = 501, "Dataset501_Lesions"
PLANS = {"own": "nnUNetPlans", "ours": "nnUNetPlans_ours"}
CPU = torch.device("cpu")


def write_raw(folder: Path, split: dict[str, list[str]]) -> None:
    """The patients to train on and to validate, in nnU-Net's layout, and its plan and preprocessed data of them."""
    raw, preprocessed = folder / "raw" / NAME, folder / "preprocessed" / NAME
    for case in [*split["train"], *split["val"]]:
        for name, copy in (("images", f"imagesTr/{case}_0000.nii.gz"), ("masks", f"labelsTr/{case}.nii.gz")):
            (raw / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder.parent / "phantom" / name / f"{case}.nii.gz", raw / copy)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(split["train"]) + len(split["val"]),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",  # the files are of several orientations
    }
    write_json(raw / "dataset.json", description)
    program = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
    options = f"-d {NUMBER} -c 3d_fullres -npfp 1 -np 1 --verify_dataset_integrity"
    subprocess.run([sys.executable, "-m", program, *options.split()], check=True)
    write_json(preprocessed / "splits_final.json", [{part: split[part] for part in ("train", "val")}])
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    write_json(preprocessed / f"{PLANS['ours']}.json", as_ours(plans))


def as_ours(plans: dict[str, Any]) -> dict[str, Any]:
    """A plan with the patch, batch and channels of lesion_training's U-Net; its axes are slices, rows, columns."""
    section = plans["configurations"]["3d_fullres"]
    arguments = section["architecture"]["arch_kwargs"]
    channels = [8, 16, 32, 64]
    for name, level in (("kernel_sizes", 0), ("strides", 0), ("n_conv_per_stage", 0), ("n_conv_per_stage_decoder", 1)):
        arguments[name] = arguments[name][: len(channels) - level]
    arguments.update(n_stages=len(channels), features_per_stage=channels)
    section.update(patch_size=[32, 64, 64], batch_size=4)
    return {**plans, "plans_name": PLANS["ours"]}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def build_trainer(folder: Path, plan: str, trainer: str) -> Any:
    """A trainer of nnU-Net's, or of several joined by +, each of which changes something else."""
    preprocessed = folder / "preprocessed" / NAME
    plans = json.loads((preprocessed / f"{PLANS[plan]}.json").read_text(encoding="utf-8"))
    description = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    kinds = [recursive_find_trainer_class_by_name(name) for name in trainer.split("+")]
    return type(trainer, tuple(kinds), {})({**plans, "continue_training": False}, "3d_fullres", 0, description, CPU)


def train(trainer: Any, seconds: float, began: float) -> int:
    """Steps until the process has taken `seconds` of CPU since `began`; returns how many."""
    trainer.on_train_start()
    steps = 0
    while (spent := time.process_time() - began) < seconds:
        trainer.network.train()
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - spent / seconds) ** 0.9
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        steps += 1
        if steps % 25 == 0:
            counts = validate(trainer)
            print(f"step {steps}, {spent:.0f} s: loss {loss:.3f}, Dice of validation patches {counts:.3f}", flush=True)
    return steps


@torch.no_grad()
def validate(trainer: Any) -> float:
    """The Dice over all voxels of five batches of patches of the validation part."""
    trainer.network.eval()
    found = [trainer.validation_step(next(trainer.dataloader_val)) for _ in range(5)]
    tp, fp, fn = (sum(float(one[name][0]) for one in found) for name in ("tp_hard", "fp_hard", "fn_hard"))
    return 2 * tp / max(2 * tp + fp + fn, 1)


def predict(trainer: Any, images: list[Path], output: Path, mirrored: bool) -> None:
    """Masks of image files by nnU-Net's sliding windows, with its test-time mirroring or without."""
    trainer.set_deep_supervision_enabled(False)
    output.mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(use_mirroring=mirrored, device=CPU, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    names = [str(output / image.name.removesuffix(".nii.gz")) for image in images]
    predictor.predict_from_files_sequential([[str(image)] for image in images], names)


def score(predicted: Path, reference: Path) -> dict[str, float]:
    """Dice of two files in the geometry of the reference, its lesions, those found and those false, by any overlap."""
    images = [nibabel.load(path) for path in (predicted, reference)]
    assert images[0].shape == images[1].shape
    assert np.allclose(images[0].affine, images[1].affine)
    ours, truth = (np.asarray(image.dataobj) > 0 for image in images)
    lesions, count = ndimage.label(truth, np.ones((3, 3, 3)))
    components, predictions = ndimage.label(ours, np.ones((3, 3, 3)))
    return {
        "dice": 2 * np.sum(ours & truth) / (np.sum(ours) + np.sum(truth)),
        "lesions": count,
        "found": len(np.unique(lesions[ours & truth])),
        "false": predictions - len(np.unique(components[ours & truth])),
    }


def measure(folder: Path, arguments: argparse.Namespace, test: list[str]) -> Iterator[dict[str, Any]]:
    """One training and the scores of its test patients: a row without test-time mirroring, and one with."""
    for module in (random, np.random):
        module.seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    began = time.process_time()
    trainer = build_trainer(folder, arguments.plan, arguments.trainer)
    steps = train(trainer, arguments.seconds, began)
    spent = time.process_time() - began
    section = trainer.configuration_manager
    images = [folder.parent / "phantom" / "images" / f"{case}.nii.gz" for case in test]
    for mirrored in (False, True)[: 1 if arguments.no_mirrored else 2]:
        name = f"{arguments.plan}-{arguments.trainer}-{arguments.seed}-{arguments.seconds:g}-{mirrored:d}"
        began = time.process_time()
        predict(trainer, images, folder / "predicted" / name, mirrored)
        scores = [
            score(folder / "predicted" / name / image.name, folder.parent / "phantom" / "masks" / image.name)
            for image in images
        ]
        yield {
            **{key: getattr(arguments, key) for key in ("plan", "trainer", "seed")},
            "patch": list(section.patch_size),
            "batch": section.batch_size,
            "parameters": sum(tensor.numel() for tensor in trainer.network.parameters()),
            "steps": steps,
            "seconds": round(spent),
            "mirrored": mirrored,
            "dice": round(mean(one["dice"] for one in scores), 4),
            "found": round(sum(one["found"] for one in scores) / sum(one["lesions"] for one in scores), 3),
            "false": round(mean(one["false"] for one in scores), 2),
            "prediction_seconds": round(time.process_time() - began),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.nnunet_phantom",
        description=__doc__,
        epilog="example: OMP_NUM_THREADS=1 nnunet/bin/python -m tests.benchmarks.nnunet_phantom /tmp/lesions",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="of tests.benchmarks.lesion_training")
    parser.add_argument("--plan", choices=PLANS, default="ours", help="default: %(default)s")
    parser.add_argument("--trainer", default="nnUNetTrainer", help="or A+B (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=300, help="of CPU, a training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mirrored", action="store_true", help="no second prediction, with test-time mirroring")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = arguments.folder.absolute()
    folder = root / "nnunet"
    os.environ.update({f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")})
    split = json.loads((root / "spacing" / "data" / "split.json").read_text(encoding="utf-8"))
    if not (folder / "preprocessed" / NAME / f"{PLANS['ours']}.json").exists():
        write_raw(folder, split)
    os.environ.update(nnUNet_n_proc_DA="0")  # augmentation in this process, whose CPU seconds count
    for row in measure(folder, arguments, split["test"]):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
