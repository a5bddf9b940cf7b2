"""Every rule of the config: a mistake raises at load, naming the dotted parameter, what is found and allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from tests.params import LOADED, PARAMS, holder, load, load_with, values


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


def dotted_names(section: dict[str, Any], prefix: str = "") -> list[str]:
    """Every parameter of params.yaml that the types name; free mappings (classes, space, presets) end the walk."""
    names = []
    for name, value in section.items():
        dotted = prefix + name
        names.append(dotted)
        if isinstance(value, dict) and dotted not in {"data.classes", "search.space", "study.arms", "presets"}:
            names += dotted_names(value, f"{dotted}.")
    return names


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """What a call that must fail says; nothing where it does not."""
    try:
        call(*arguments)
    except InputError as error:
        return str(error)
    return ""


def test_nothing_has_a_default() -> None:
    defaults = []
    for dotted in dotted_names(LOADED):
        without = values()
        section, name = holder(without, dotted)
        del section[name]
        if not refusal(Config.parse, without).startswith(f"params: {dotted} is missing"):
            defaults.append(dotted)
    assert defaults == []


@pytest.mark.parametrize("dotted", ["typo", "model.typo", "model.llm.typo", "training.augment.typo"])
def test_nothing_is_extra(dotted: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"params.yaml: {dotted}: unknown parameter"):
        load_with(tmp_path, dotted, 1)


def of_folder(classes: dict[str, Any] | None) -> dict[str, Any]:
    """The section `data` of a folder with these classes."""
    return {**values()["data"], "dataset": "folder", "classes": classes}


BAD_VALUES = [
    # what one field takes
    ("llm.sha256", "abc", "found 'abc'", "pattern"),
    ("llm.layers", [-1], "found -1", "greater than or equal to 0"),
    ("data.dataset", "mri", "found 'mri'", "'brain-mri', 'lung-ct', 'phantom', 'folder', 'acdc'"),
    ("data.spatial_dims", 4, "found 4", "2 or 3"),
    ("data.size", [0, 128], "found 0", "greater than 0"),
    ("data.intensity", "rank", "found 'rank'", "'zscore', 'window', 'unit', 'released' or 'ct'"),
    ("data.grid", "crop", "found 'crop'", "'resize' or 'spacing'"),
    ("data.spacing", [1.5, 1.5], "found [1.5, 1.5]", "auto, or three numbers greater than 0"),
    ("data.spacing", [1.5, 0, 2], "found [1.5, 0, 2]", "auto, or three numbers greater than 0"),
    ("data.classes", {}, "found {}", "at least 1"),
    ("data.classes", {"lesion": [1 << 32]}, "found 4294967296", "a whole number from 0 to 2147483647"),
    ("data.classes", {f"c{k}": [k] for k in range(1, 258)}, "found 257 classes", "254 at most"),
    ("training.augment.color", 1.5, "found 1.5", "less than 1"),
    ("training.augment.contrast", 1.0, "found 1.0", "less than 1"),
    ("training.augment.low_resolution", 1, "found 1", "less than 1"),
    ("training.augment.gamma", -0.1, "found -0.1", "greater than or equal to 0"),
    ("training.augment.elastic", [0, 9], "found [0, 9]", "number"),
    ("training.patience", 0, "found 0", "greater than 0"),
    ("data.folder.group", "patient", "found 'patient'", "exactly one group"),
    ("data.folder.group", "(", "found '('", "unterminated subpattern"),
    ("data.phantom.cases", 0, "found 0", "greater than 0"),
    ("data.phantom.size", [8, 8], "found 8", "greater than or equal to 16"),
    ("split.rule", "blocks", "found 'blocks'", "'auto', 'group', 'block', 'official', 'file' or 'random'"),
    ("split.file", "../lists.json", "found '../lists.json'", "a file inside data.root"),
    ("split.file", "/lists.json", "found '/lists.json'", "a file inside data.root"),
    ("split.file", {"training": "a.txt"}, "found {'training': 'a.txt'}", "by train, val, test"),
    ("split.file", 5, "found 5", "a file inside data.root"),
    ("split.file", "a\0.txt", "found 'a\\x00.txt'", "a file inside data.root"),
    ("split.val", 1.0, "found 1.0", "less than 1"),
    ("split.test", -0.1, "found -0.1", "greater than or equal to 0"),
    ("split.folds", 1, "found 1", "greater than or equal to 2"),
    ("model.backbone", "unet9", "found 'unet9'", "'cmunext'"),
    ("model.unet.channels", [8], "found [8]", "at least 2"),
    ("model.unet.residual_units", -1, "found -1", "greater than or equal to 0"),
    ("model.attention_unet.channels", [8, 1], "found 1", "greater than or equal to 2"),
    ("model.unet_plus_plus.features", [8, 8, 8, 8, 8], "found [8, 8, 8, 8, 8]", "at least 6"),
    ("model.dynunet.filters", [8, 16], "found [8, 16]", "at least 3"),
    ("model.swin_unetr.depths", [2, 2, 2], "found [2, 2, 2]", "at least 4"),
    ("model.swin_unetr.window", 1, "found 1", "greater than or equal to 2"),
    ("model.smp.architecture", "deeplab", "found 'deeplab'", "'unet', 'unet++'"),
    ("model.bottleneck", "mamba", "found 'mamba'", "'identity', 'llm' or 'mlp'"),
    ("model.llm.layer", -1, "found -1", "greater than or equal to 0"),
    ("model.llm.layer", "seven", "found 'seven'", "valid integer"),
    ("model.llm.weights", "half", "found 'half'", "'pretrained', 'random' or 'shuffled'"),
    ("model.llm.position", "2d", "found '2d'", "'native', 'axial', 'released' or 'none'"),
    ("model.llm.attention", "sparse", "found 'sparse'", "'causal' or 'bidirectional'"),
    ("model.llm.layer", "5-3", "found '5-3'", "must rise"),
    ("model.llm.layer", [], "found []", "at least 1"),
    ("model.llm.layer", True, "found True", "a layer's number, a range such as 3-5, or a list of numbers"),
    ("model.llm.layer", [3, True], "found [3, True]", "a layer's number"),
    ("model.llm.training", "half", "found 'half'", "'frozen', 'full' or 'lora'"),
    ("model.llm.lora.rank", 0, "found 0", "greater than 0"),
    ("model.llm.adapter.kind", "conv", "found 'conv'", "'linear' or 'bottleneck'"),
    ("model.llm.adapter.width", 0, "found 0", "greater than 0"),
    ("model.llm.residual", "highway", "found 'highway'", "'none', 'plain' or 'gate'"),
    ("model.llm.pool", 0, "found 0", "greater than 0"),
    ("model.llm.dtype", "fp8", "found 'fp8'", "'fp32', 'bf16', 'int8' or 'int4'"),
    ("optimizer.lr", 0, "found 0", "greater than 0"),
    ("optimizer.lr", float("nan"), "found nan", "finite"),
    ("optimizer.momentum", 1, "found 1", "less than 1"),
    ("optimizer.clip_norm", 0, "found 0", "greater than 0"),
    ("training.epochs", 0, "found 0", "greater than 0"),
    ("training.loss", "focal", "found 'focal'", "'dice_ce', 'bce_dice', 'dice_focal' or 'tversky_ce'"),
    ("training.focal_gamma", -1, "found -1", "greater than or equal to 0"),
    ("training.tversky.beta", 0, "found 0", "greater than 0"),
    ("training.class_weights", "balanced", "class_weights: found 'balanced'", "allowed: null, auto, or a list"),
    ("training.class_weights", [0, 1], "class_weights: found [0, 1]", "of numbers above 0, the background's first"),
    ("training.class_weights", [1], "class_weights: found [1]", "allowed: null, auto, or a list"),
    ("training.class_weights", [1, True], "class_weights: found [1, True]", "allowed: null, auto, or a list"),
    ("training.augment.rotate", 200, "found 200", "less than or equal to 180"),
    ("engine.zero", 4, "found 4", "0, 1, 2 or 3"),
    ("engine.accumulation", 0, "found 0", "greater than 0"),
    ("cluster.workers", 0, "found 0", "greater than 0"),
    ("cluster.workers", [0, 2], "found 0", "greater than 0"),
    ("cluster.data", "pull", "cluster:", "storage: found null, allowed: s3://bucket/prefix, since data is pull"),
    ("cluster.workers", [4, 2], "cluster:", "workers must rise, found [4, 2]"),
    ("search.trials", -1, "found -1", "greater than or equal to 0"),
    ("search.space", {"optimizer.lr": []}, "search.space.optimizer.lr", "at least 1"),
    ("search.space", {"optimizer.lr": {"uniform": [0.1, 0.01]}}, "search.space.optimizer.lr", "bounds must rise"),
    ("search.space", {"optimizer.lr": {"loguniform": [0, 1]}}, "search.space.optimizer.lr", "greater than 0"),
    ("search.space", {"optimizer.lr": {"normal": [0, 1]}}, "search.space.optimizer.lr", "loguniform, randint"),
    ("search.space", {"optimizer.lr": 0.1}, "search.space.optimizer.lr", "a list of values"),
    ("search.objectives", ["latency"], "found ['latency']", "allowed: val_dice, then any of"),
    ("search.algorithm", "grid", "algorithm: found grid", "optimizer.lr has no list of values"),
    ("cluster.gpus_per_worker", 0, "found 0", "greater than 0"),
    ("cluster.gpus", 2, "cluster.gpus: found 2", "allowed: null, or a list of indices"),
    ("cluster.gpus", [], "cluster.gpus: found []", "allowed: null, or a list of indices"),
    ("cluster.gpus", [0, 0], "cluster.gpus: found [0, 0]", "each once"),
    ("cluster.gpus", [-1, True, "first"], "cluster.gpus: found [-1, True, 'first']", "or of UUIDs"),
    ("training.fraction", 0, "found 0", "greater than 0"),
    ("training.label_noise.drop", 1.5, "found 1.5", "less than or equal to 1"),
    ("study.metric", "hd95", "found 'hd95'", "'dice', 'iou', 'nsd' or 'log_likelihood'"),
    ("study.arms", {}, "found {}", "at least 1"),
    ("study.only", [], "found []", "at least 1"),
    ("study.only", ["rnd"], "study: only: found 'rnd'", "model, cnn, random"),
    ("evaluation.tta", [2], "evaluation.tta: found 2", "0 to 1"),
    ("evaluation.tta", [1, 1], "evaluation: tta: found ['1', '1']", "each once"),
    ("evaluation.postprocess", ["most:a"], "evaluation.postprocess.0: found 'most:a'", "largest:CLASS"),
    ("evaluation.models", [], "evaluation.models: found []", "at least 1"),
    ("study.arms", {"cnn": {}, "random": {"data.size": [8, 8]}}, "study.arms.random: found data.size", "optimizer"),
    ("study.arms", {"cnn": {}, "random": {"preset": "rnd"}}, "study.arms.random.preset: found 'rnd'", "random-frozen"),
    ("study.arms", {"cnn": {}, "random": {"optimizer.lr": -1}}, "optimizer.lr: found -1", "greater than 0"),
    ("study.references", ["cmn"], "study:", "references: found 'cmn', allowed: model, cnn, random"),
    ("study.data", ["a", "b", "a"], "study:", "data: found a twice, allowed: each data set once"),
    ("study.folds", [1, 1], "study:", "folds: found [1, 1], allowed: each fold once"),
    ("study.folds", [5], "study.folds: found 5", "0 to 4"),
    ("evaluation.bootstrap", 10, "found 10", "greater than or equal to 100"),
    ("evaluation.confidence", 0.5, "found 0.5", "greater than 0.5"),
    # what fields of one section must agree on
    ("data", of_folder({"lesion": [0]}), "data.classes:", "found 0 for lesion, allowed: greater than 0"),
    ("data", of_folder({"a": [1], "b": [1, 2]}), "data: classes:", "found 1 under a and b, allowed: under one"),
    ("data", of_folder({"a": [1, "#010101"]}), "data.classes:", "found both 1 and '#010101', which are the same mask"),
    ("data", of_folder({"a": [1], "ignore": [1]}), "data.classes:", "found 1 under ignore and a, allowed: under one"),
    (
        "data",
        {**of_folder({"a": [1, 2], "b": [2]}), "regions_class_order": [1, 1]},
        "data: regions_class_order: found [1, 1]",
        "a value of each of a, b, in this order",
    ),
    ("data.regions_class_order", [1], "regions_class_order: found [1]", "allowed without data.classes: null"),
    ("data", of_folder({"a": ["benign"]}), "data.classes:", "found 'benign' for a, allowed for a folder: gray values"),
    ("data", of_folder({"a": ["#fff"]}), "data.classes:", "found '#fff' for a, allowed for a folder: gray values"),
    ("data.classes", {"background": [1]}, "data.classes:", "allowed: a class beside it"),
    ("data", of_folder(None) | {"dataset": "isic", "spatial_dims": 3, "size": [16] * 3}, "data:", "isic: 2"),
    ("data.root", None, "found None", "not a valid path"),
    ("data.phantom.patients", 61, "data.phantom", "patients (61) must not exceed cases (60)"),
    ("data.size", [128, 128, 128], "data:", "size has 3 numbers, spatial_dims is 2"),
    ("data.window", [400, -1000], "data:", "window must rise, found [400.0, -1000.0]"),
    ("split.val", 0.9, "split:", "val + test is 1.1; some must be left to train on"),
    ("split.fold", 5, "split:", "fold is 5, allowed: 0 to 4"),
    ("split.rule", "file", "split:", "file: found null, allowed with rule: file: a list"),
    ("model.cmunext.dims", [8, 16, 32, 64], "model.cmunext:", "dims, depths and kernels must be equally long"),
    ("model.cmunext.kernels", [3, 3, 7, 7, 6], "model.cmunext:", "kernels must be odd, found [3, 3, 7, 7, 6]"),
    ("model.segresnet.filters", 12, "model.segresnet:", "filters: found 12, allowed: multiples of 8"),
    ("model.segresnet.blocks_up", [1, 1], "model.segresnet:", "blocks_up must be one shorter than blocks_down"),
    ("model.dynunet.kernels", [3, 3, 3], "model.dynunet:", "filters and kernels must be equally long"),
    ("model.dynunet.kernels", [3, 3, 3, 3, 4], "model.dynunet:", "kernels must be odd, found [3, 3, 3, 3, 4]"),
    ("model.unetr.heads", 5, "model.unetr:", "heads: found 5, allowed: divisors of hidden_size, 192"),
    ("model.swin_unetr.feature_size", 16, "model.swin_unetr:", "feature_size: found 16, allowed: multiples of 12"),
    ("model.swin_unetr.heads", [3, 6, 7, 24], "model.swin_unetr:", "heads: found 7, allowed: divisors of that stage"),
    ("model.llm", {**values()["model"]["llm"], "training": "full", "dtype": "bf16"}, "model.llm:", "allowed: fp32"),
    ("model.llm", {**values()["model"]["llm"], "training": "lora", "dtype": "int8"}, "model.llm:", "fp32 or bf16"),
    ("model.llm", {**values()["model"]["llm"], "layer": [3, 3], "training": "lora"}, "3 more than once", "is lora"),
    (
        "model.llm",
        {**values()["model"]["llm"], "layer": [3, 3], "weights": "random"},
        "found 3 more than once",
        "random",
    ),
    (
        "model.llm.pool",
        3,
        "model.llm.pool: found 3, allowed: divisors of the grid in",
        "[8, 8] (data.size, model.backbone)",
    ),
    ("model.llm.max_tokens", 63, "model.llm.max_tokens: found 63, allowed: at least 64", "8 x 8"),
    ("engine.offload", "cpu", "engine:", "offload: cpu needs name: auto or deepspeed, and zero: 3"),
    # what sections must agree on
    (
        "cluster.workers",
        3,
        "training.batch_size: found",
        "multiples of cluster.workers x engine.accumulation = 3 x 1",
    ),
    ("cluster.workers", [1, 5], "training.batch_size: found 4", "at least cluster.workers x engine.accumulation = 5"),
    ("engine.accumulation", 16, "training.batch_size: found", "engine.accumulation = 1 x 16"),
    ("data.size", [128, 120], "data.size: found 120", "multiples of 16 (model.backbone)"),
    ("training.augment.flip", [2], "training.augment.flip: found 2", "0 to 1"),
    ("data.grid", "spacing", "data:", "grid: found spacing, allowed with spatial_dims: 2: resize"),
    ("data.intensity", "ct", "data:", "intensity: found ct, allowed with grid: resize: zscore, window, unit or rel"),
    ("training.patch.share", 1.5, "training.patch.share: found 1.5", "less than or equal to 1"),
    ("training.patch.share", -0.1, "training.patch.share: found -0.1", "greater than or equal to 0"),
    ("training.validate_every", 0, "training.validate_every: found 0", "greater than 0"),
    ("evaluation.overlap", 1.0, "evaluation.overlap: found 1", "less than 1"),
    ("training.patch.size", [96, 0, 96], "found 0", "greater than 0"),
    ("training.patch.size", [96, 96], "found [96, 96]", "allowed: auto, or three whole numbers"),
    ("training.patch.size", "automatic", "found 'automatic'", "allowed: auto, or three whole numbers"),
    ("training.patch.foreground", "any", "found 'any'", "'voxel', 'class' or 'none'"),
    # what names other parameters
    ("search.space", {"model.llm.layr": [1]}, "model.llm.layr: no such parameter", "did you mean model.llm.layer"),
    ("search.space", {"optimizer.lr": [0.1, -1]}, "optimizer.lr: found -1", "greater than 0"),
    ("search.space", {"optimizer.lr": {"uniform": [-1, 1]}}, "optimizer.lr: found -1", "greater than 0"),
    ("search.space", {"training.batch_size": {"uniform": [1, 9]}}, "training.batch_size: found", "integer"),
    ("search.space", {"model.llm.layer": {"randint": [-1, 3]}}, "model.llm.layer", "greater than or equal to 0"),
    ("search.space", {"data.intensity": ["zscore", "unit"]}, "search.space: found data.intensity", "model, optimizer"),
    ("search.space", {"split.seed": {"randint": [0, 9]}}, "search.space: found split.seed", "training, engine"),
    ("search.space", {"cluster.workers": [1, 2]}, "search.space: found cluster.workers", "parameters of model"),
    ("search.space", {"search.epochs": [5, 9]}, "search.space: found search.epochs", "allowed: parameters of model"),
    ("search.space", {"evaluation.nsd_tolerance": [1, 2]}, "found evaluation.nsd_tolerance", "parameters of model"),
    ("search.space", {"training.epochs": [5, 20]}, "search.space: found training.epochs", "but for training.epochs"),
    (
        "search.space",
        {"training.patience": [5, 20]},
        "search.space: found training.patience",
        "but for training.epochs",
    ),
    ("search.space", {"training.init_from": ["a", "b"]}, "search.space: found training.init_from", "parameters of"),
    ("search.space", {"training": [{}]}, "search.space: found training,", "allowed: parameters of model"),
    (
        "search.space",
        {"model.llm.layer": [7, 3, "7"]},
        "search.space.model.llm.layer: found '7' twice",
        "each value once",
    ),
    ("presets", {"bad": {"engine.zeros": 1}}, "engine.zeros: no such parameter", "did you mean engine.zero"),
    ("presets", {"bad": {"engine.zero": 9}}, "engine.zero: found 9", "0, 1, 2 or 3"),
]


def test_a_bad_value_is_named_with_what_is_allowed(tmp_path: Path) -> None:
    unclear = []
    for dotted, value, found, allowed in BAD_VALUES:
        message = refusal(load_with, tmp_path, dotted, value)
        words = [found, allowed] + [dotted] * found.startswith("found")
        if not all(word in message for word in words):
            unclear.append((dotted, value, message))
    assert unclear == []


VOLUMES = {"data.grid": "spacing", "data.spatial_dims": 3, "data.dataset": "lung-ct", "data.size": [7]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.patch.size": [96, 100, 96]}, r"found 100, allowed: multiples of 16 .*, the nearest are 96 and 112"),
        ({"training.patch.size": [5, 96, 96]}, r"found 5, allowed: multiples of 16 .*, the nearest are 16$"),
        ({"training.patch.size": [512, 512, 512]}, r"32768, the 32 x 32 x 32 tokens of training\.patch\.size"),
        (
            {"training.patch.size": [96, 48, 96], "training.augment.quarter_turns": True},
            r"patch\.size \[96, 48",
        ),
        (
            {"data.spacing": [1.5, 1.0, 2], "training.augment.quarter_turns": True},
            r"quarter_turns: found true, allowed: false, as data\.spacing is 1\.5 x 1 mm to the right",
        ),
        (
            {"training.label_noise.drop": 0.5},
            r"label_noise\.drop: found 0\.5, allowed with data\.grid",
        ),
        ({"data.intensity": "released"}, r"intensity: found released, allowed with grid: spacing: .* or ct"),
        ({"data.spatial_dims": 2}, r"grid: found spacing, allowed with spatial_dims: 2: resize"),
    ],
)
def test_volumes_are_seen_in_patches(config: Config, changes: dict[str, Any], message: str) -> None:
    """The patch is the network's input then, and nothing complains of data.size."""
    volumes = config.override(VOLUMES | {"data.spacing": [1.5, 1.5, 2], "data.intensity": "ct"})
    assert volumes.input_size == (96, 96, 96)
    assert config.input_size == config.data.size
    with pytest.raises(InputError, match=message):
        volumes.override(changes)


def test_an_automatic_patch_is_checked_once_the_volumes_are_known(config: Config) -> None:
    automatic = config.override(VOLUMES | {"training.patch.size": "auto", "training.augment.quarter_turns": True})
    assert not automatic.known_size
    assert config.known_size
    with pytest.raises(InputError, match=r"training\.patch\.size: found auto, allowed where no prepared data are read"):
        _ = automatic.input_size
    resized = config.override({"training.patch.size": "auto"})
    assert resized.known_size
    assert resized.input_size == config.data.size


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    changed = values()
    changed["optimizer"]["lr"] = -1
    changed["training"]["epochs"] = 0
    with pytest.raises(InputError, match=r"optimizer.lr: found -1.*\n.*training.epochs: found 0"):
        load(tmp_path, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study.analyze": True}, r"analyze: found true, allowed with study\.data: false"),
        ({"study.repeats": 5, "study.looks": [3, 5]}, r"looks: found \[3, 5\], allowed with study\.data: null"),
        ({"study.other_data": "b"}, r"other_data: found .*b, allowed with study\.data: null"),
    ],
)
def test_what_a_study_of_several_data_sets_does_not_have(changes: dict[str, Any], message: str) -> None:
    config = Config.load(PARAMS).override(changes)
    with pytest.raises(InputError, match=message):
        config.override({"study.data": ["a", "c"]})
