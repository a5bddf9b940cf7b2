"""The configs of a MONAI bundle, as dictionaries: metadata.json, evaluate.json and inference.json."""

from typing import Any

from llm4seg.data.preprocessing import View
from llm4seg.datasets.geometry import VIEWS

AXES = ("LR", "PA", "IS")  # of right, anterior, superior: where an axis leads backwards, and forwards
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def metadata(about: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
    """metadata.json; `versions` of the packages that run the bundle."""
    others = {name: found for name, found in versions.items() if name not in ("monai", "torch", "numpy")}
    named = {0: "background"} | dict(enumerate(about["labels"]["classes"], start=1))
    llm = about["llm"]
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported by llm4seg"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": others,
        "task": "segmentation",
        "description": f"A network trained with llm4seg on {about['trained_on']}",
        "authors": "unknown",
        "copyright": "unknown" if llm is None else f"holds layers of {llm['source']}, license: {llm['license']}",
        "network_data_format": {
            "inputs": {"image": _tensor(about["input"], "image", {0: "image"})},
            "outputs": {"pred": _tensor(about["output"], "segmentation", {str(k): v for k, v in named.items()})},
        },
    }


def _tensor(entry: dict[str, Any], kind: str, channels: dict[Any, str]) -> dict[str, Any]:
    _, count, *size = entry["shape"]
    return {
        "type": "image",
        "format": kind,
        "num_channels": count,
        "spatial_shape": size,
        "dtype": entry["dtype"],
        "value_range": [],
        "is_patch_data": False,
        "channel_def": channels,
    }


def evaluate_config(about: dict[str, Any]) -> dict[str, Any]:
    """evaluate.json: each label's Dice, on the images' own grid, to a folder of CSV files."""
    scheme = about["labels"]
    highest = max([len(scheme["classes"]), *scheme.get("regions_class_order", [])])
    both = "$monai.handlers.from_engine(['pred', 'label'])"
    one_hot = {"_target_": "AsDiscreted", "keys": ["pred", "label"], "to_onehot": highest + 1}
    saved = {
        "_target_": "MetricsSaver",
        "save_dir": "@output_dir",
        "metrics": ["val_mean_dice"],
        "metric_details": ["val_mean_dice"],
        "batch_transform": "$lambda batch: [one['image'].meta for one in batch]",
        "summary_ops": "*",
    }
    return _common(about, ["image", "label"]) | {
        "labels": "$sorted(glob.glob(@dataset_dir + '/labels/*'))",
        "data": "$[{'image': i, 'label': l} for i, l in zip(@images, @labels, strict=True)]",
        "evaluator": _evaluator([one_hot])
        | {
            "key_val_metric": {
                "val_mean_dice": {"_target_": "MeanDice", "include_background": False, "output_transform": both}
            },
            "val_handlers": [{"_target_": "StatsHandler", "iteration_log": False}, saved],
        },
        "run": ["$@evaluator.run()"],
    }


def inference_config(about: dict[str, Any]) -> dict[str, Any]:
    """inference.json: each image's mask, in the geometry of its file."""
    back = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    saved = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "mask",
        "output_dtype": "$numpy.uint8",
        "separate_folder": False,
        "resample": False,
    }
    return _common(about, ["image"]) | {
        "data": "$[{'image': i} for i in @images]",
        "evaluator": _evaluator([back | {"nearest_interp": True}, saved]),
        "run": ["$@evaluator.run()"],
    }


def _common(about: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    loader = {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0}
    return {
        "imports": ["$import glob", "$import monai", "$import numpy", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "images": "$sorted(glob.glob(@dataset_dir + '/images/*'))",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network": {
            "_target_": "scripts.segment.load_network",
            "file": "$@bundle_root + '/models/model.pt2'",
            "device": "@device",
        },
        "preprocessing": {"_target_": "Compose", "transforms": _transforms(about["preprocessing"], keys)},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": loader,
        "inferer": {"_target_": "scripts.segment.ImageInferer", "about": "$@bundle_root + '/models/model.json'"},
    }


def _transforms(read: dict[str, Any], keys: list[str]) -> list[dict[str, Any]]:
    """From files to arrays as the network's training had them: rows, columns and slices."""
    view: View | None = read["view"]
    load: dict[str, Any] = {"_target_": "LoadImaged", "keys": keys, "dtype": None}
    first: dict[str, Any] = {"_target_": "EnsureChannelFirstd", "keys": keys}
    if view is not None:
        codes = "".join(AXES[axis][forward > 0] for axis, forward in VIEWS[view])
        ways = {"axcodes": codes, "labels": [[*pair] for pair in AXES]}
        return [load, first, {"_target_": "Orientationd", "keys": keys} | ways]
    # pictures: rows first, and colors last
    load |= {"reader": {"_target_": "PILReader", "reverse_indexing": False}}
    if read["channels"] == 1:
        return [load, first | {"channel_dim": "no_channel"}]
    colors = {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": -1}
    gray = {"_target_": "EnsureChannelFirstd", "keys": "label", "channel_dim": "no_channel"}
    return [load, colors, *([gray] if "label" in keys else [])]


def _evaluator(after: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": {"_target_": "Compose", "transforms": after},
    }
