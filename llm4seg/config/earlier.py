"""Compatibility with files of version 0.1.0: values that were renamed since, parameters that were moved or added.

Digests, names of runs and comparisons are made from what `current` returns.
"""

from collections.abc import Mapping
from typing import Any

VALUES = {  # parameter: its renamed values, old name: present name
    "training.loss": {"paper": "bce_dice"},
    "model.llm.position": {"paper": "released"},
    "preset": {"paper-exact": "released"},  # in an arm of a study
}
PRESETS = VALUES["preset"]
MOVED = {"data.folder.path": "data.root", "data.folder.classes": "data.classes"}  # parameter: where it is now
# parameter: the value that keeps the earlier behavior, and its comment in params.yaml
ADDED: dict[str, tuple[Any, str]] = {
    "paths.pictures": ("outputs/pictures", "of search and study, as SVG"),
    "paths.contact_sheet": ("outputs/data.png", "a look at the data: cases with their masks, counts, what was noticed"),
    "split.file": (None, "for rule file: a list inside data.root, text or JSON (docs/splits.md)"),
    "study.per": ("case", "case | volume: what has one score; volume: all slices of one put together"),
    "llm.sources": ({}, "name: address of another LLM, which model.llm.source may choose: docs/llms.md"),
    "model.llm.source": ("default", "which LLM: default (that of llm.source) | a name in llm.sources"),
    "data.root": ("data/raw", "the images: a folder, or the archive (.zip, .tar, .tar.gz) as downloaded"),
    "data.classes": (None, "null: the dataset's own; else class name: what it means, see docs/datasets.md"),
    "data.regions_class_order": (None, "of classes that overlap: a value of each, see docs/datasets.md"),
    "data.folder.image": (None, "null: images/ and masks/ of equal names; else a pattern, as in img{id}.nii.gz"),
    "data.folder.mask": (None, "with image: as in label{id}.nii.gz"),
    "data.folder.groups": (None, "in the place of group: a CSV inside data.root with the columns id and group"),
    "data.folder.test": (None, "a folder inside data.root with test images of its own, for split.rule: official"),
    "data.paired": ([], "[[left_kidney, right_kidney]]: classes that a flip of left and right exchanges"),
    "data.grid": ("resize", "resize | spacing (volumes in mm, of which the network sees patches)"),
    "data.spacing": ("auto", "for grid: spacing: auto, or mm to the right, to the back and to the head"),
    "training.patch": (
        {"size": [96, 96, 96], "per_case": 4, "foreground": "voxel", "share": 0.5},
        "for data.grid: spacing: rows, columns, slices; patches of a case in an epoch; see docs/datasets.md",
    ),
    "training.focal_gamma": (2.0, "of dice_focal: how little pixels count that are nearly right; 0: all alike"),
    "training.tversky": ({"alpha": 0.3, "beta": 0.7}, "of tversky_ce: weights of false and of missed pixels"),
    "training.class_weights": (None, "of the cross-entropy or focal loss, background first: null | auto | [0.2, 1.0]"),
    "model.dynunet.strides": (None, "null: 2 | auto (by spacing and shapes of volumes) | a list: docs/model.md"),
    "training.deep_supervision": (False, "the loss at several resolutions of the decoder (docs/model.md)"),
    "training.augment.quarter_turns": (False, "true: by 0, 90, 180 or 270 degrees, of square images"),
    "training.augment.color": (0.0, "of images with 3 channels: gain of each, and of its distance to gray"),
    "training.augment.elastic": (0.0, "a smooth displacement, in pixels along the longest axis, at most"),
    "training.augment.noise": (0.0, "standard deviation of Gaussian noise, at most (docs/augmentation.md)"),
    "training.augment.blur": (0.0, "sigma of a Gaussian filter in pixels, at most"),
    "training.augment.contrast": (0.0, "distance to the mean by 1 +- this, at most"),
    "training.augment.low_resolution": (0.0, "smallest zoom, down and up again; 1 would change nothing"),
    "training.augment.gamma": (0.0, "exponent from 1 / (1 + this) to 1 + this"),
    "training.augment.gamma_inverted": (0.0, "the same of the negative"),
    "optimizer.nesterov": (False, "for sgd: Nesterov's momentum"),
    "training.patience": (None, "epochs without a better validation Dice after which training stops; null: all epochs"),
    "training.validate_every": (1, "epochs from one validation to the next; the last epoch is always validated"),
    "search.screen": (False, "true: the first trials have the layers that a screen without training ranks first"),
    "study.looks": (None, "null: none; else how many, or after which repeats, as in [3, 4, 5] (docs/study.md)"),
    "study.keep": ("none", "none | weights: each run's model, in outputs/study/models (docs/ensembles.md)"),
    "study.only": (None, "null: all arms; else a list of those that take part; `model` is that of this file as it is"),
    "study.data": ([], "[]: the pipeline's own; else folders of data sets, on each of which all arms are trained"),
    "evaluation.models": (None, "null: paths.model; else folders of models, whose probabilities are averaged"),
    "evaluation.tta": ([], "test-time augmentation: image axes to mirror along (docs/ensembles.md)"),
    "evaluation.postprocess": ([], "largest:CLASS, min:PIXELS or min:PIXELS:CLASS (docs/ensembles.md)"),
    "evaluation.overlap": (0.5, "of the windows of volumes in patches, as a share of the patch"),
    "paths.tracking": (".tracking", "what trackers write, and the live history of finished trainings; as cache"),
    "tracking": ({"to": "none", "pictures": 0}, "what is seen of a training while it runs (docs/tracking.md)"),
    "engine.deterministic": (True, "on GPUs the same bits each time; false: faster, with sums in any order"),
    "engine.graph": ("auto", "auto (a GPU replays steps as a CUDA graph, the same bits) | off (docs/distributed.md)"),
    "paths.analysis": ("outputs/analysis", "analysis.json, analysis.csv, tokens.csv, examples.safetensors"),
    "study.analyze": (False, "true: each run's features are measured by `analysis`, too (docs/analysis.md)"),
    "analysis": (
        {
            "enabled": False,
            "part": "test",
            "classes": None,
            "activation": "magnitude",
            "at": "tokens",
            "shifts": 100,
            "probe_cases": 100,
            "field_cases": 8,
        },
        "what the block does to the features (docs/analysis.md)",
    ),
    "cluster.launcher": ("ray", "ray | process: one worker in the command's own process, without Ray"),
    "cluster.gpus": (None, "null: all that are visible; else which, as nvidia-smi counts them: [0, 2]"),
}
UPGRADE = "it is of an earlier version: python -m pipelines.upgrade"


def current(value: Any, name: str = "") -> Any:
    """A value with renamed words replaced: of the parameter `name`, or a mapping from parameters, dotted or nested, to
    values, lists of values, or distributions of a search.
    """
    if isinstance(value, Mapping):
        return {key: current(one, name if key == "choice" else f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(current(one, name) for one in value)
    if isinstance(value, str):
        return renamed(value, name)
    return value


def moved(values: Any, section: str = "") -> Any:
    """Values, dotted or nested, of a section ("data.", or "" for all) with MOVED parameters at their present places.

    Raises ValueError when a parameter is there under its old and its present name, and the latter is not as shipped.
    """
    if not isinstance(values, Mapping):
        return values
    found = {key: moved(value, f"{section}{key}.") for key, value in values.items()}
    for old, new in MOVED.items():
        if not new.startswith(section):
            continue
        name, holders = new.removeprefix(section), {section: found}
        holders |= {f"{section}{key}.": inner for key, inner in found.items() if isinstance(inner, dict)}
        for prefix, holder in holders.items():
            if (key := old.removeprefix(prefix)) in holder and (prefix == section or not new.startswith(prefix)):
                if name in found and found[name] != ADDED[new][0]:  # that of a file in which only the old one was set
                    raise ValueError(f"found {old} and {new}, which is its name now; allowed: one of them")
                found[name] = _kept(new, holder.pop(key), found)
    return found


def _kept(name: str, value: Any, section: Mapping[str, Any]) -> Any:
    """A moved value; mask values, which other datasets than `folder` passed over, mean nothing for them."""
    return None if name == "data.classes" and section.get("dataset", "folder") != "folder" else value


def renamed(word: str, name: str) -> str:
    """The present name of a value, where `name` ends in the name of a parameter with renamed values; else the value."""
    tables = [words for parameter, words in VALUES.items() if f".{name}".endswith(f".{parameter}")]
    return tables[0].get(word, word) if tables else word


def current_presets(presets: Any) -> Any:
    """Presets by their present names. Raises ValueError when a preset is there under its old and its present name."""
    if not isinstance(presets, Mapping):
        return presets
    for was, now in PRESETS.items():
        if was in presets and now in presets:
            raise ValueError(f"found {was} and {now}, which is its name now; allowed: one of them")
    return {PRESETS.get(name, name): changes for name, changes in presets.items()}


def current_sections(sections: Mapping[str, Any]) -> dict[str, Any]:
    """A config's sections, from a file of any version, with renamed values replaced and added parameters filled in."""
    upgraded: dict[str, Any] = moved(current(sections))
    for dotted, (value, _) in ADDED.items():
        *parents, name = dotted.split(".")
        section: Any = upgraded
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and parents:
            section.setdefault(name, value)
    return upgraded
