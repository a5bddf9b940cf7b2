"""`export_bundle`: a trained model as a MONAI bundle, which `python -m monai.bundle run` evaluates and runs."""

from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from typing import Any

from llm4seg.data.preprocessing import UNKNOWN
from llm4seg.export.bundle_configs import evaluate_config, inference_config, metadata
from llm4seg.export.description import describe_export, license_line
from llm4seg.export.export import Export, export_network
from llm4seg.predict.model import Image, SegmentationModel
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import replacing, write_json, write_text

SCRIPT = Path(__file__).with_name("bundle_segment.py")
PACKAGES = ("monai", "torch", "numpy", "scipy", "nibabel", "pytorch-ignite", "fire")


def export_bundle(model: SegmentationModel, folder: Path, image: Image | None = None) -> Export:
    """Write a bundle: the network by torch.export, checked as `export_network` does, with the steps around it.

    configs/evaluate.json scores the masks of a folder's images, configs/inference.json writes them. Raises InputError
    for an `intensity` of the released code's, for files of unknown orientation, and as `export_network`.
    """
    about = describe_export(model.folders[0])
    read = about["preprocessing"]
    if read["intensity"] == "released" or read["view"] == UNKNOWN:
        raise InputError(
            f"bundle: found data.intensity: {read['intensity']} and view: {read['view']} in model.json, allowed: "
            "zscore, window, unit or ct, and a view that is known"
        )
    with replacing(folder) as partial:
        for inner in ("configs", "models", "scripts", "docs"):
            (partial / inner).mkdir(parents=True)
        done = export_network(model, "pt2", partial / "models" / "model.pt2", image)
        copyfile(SCRIPT, partial / "scripts" / "segment.py")
        (partial / "scripts" / "__init__.py").touch()
        write_json(partial / "configs" / "metadata.json", metadata(about, _versions()))
        write_json(partial / "configs" / "evaluate.json", evaluate_config(about))
        write_json(partial / "configs" / "inference.json", inference_config(about))
        write_text(partial / "docs" / "README.md", _readme(folder.name, about))
    return Export(folder, about, done.difference, done.checked_on)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError

    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:  # of the extra `export`, which writing needs not
            continue
    return found


def _readme(name: str, about: dict[str, Any]) -> str:
    classes = "\n".join(f"- {one}" for one in about["labels"]["classes"])
    return f"""# {name}

A segmentation network, trained with llm4seg on {about["trained_on"]}; it {license_line(about)}.

Classes:
{classes}

In this folder, with images in `data/images` and masks of the labels in model.json in `data/labels`:

    python -m monai.bundle run --config_file configs/evaluate.json
    python -m monai.bundle run --config_file configs/inference.json
"""
