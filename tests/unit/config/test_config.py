"""Every rule of the config: a mistake raises at load, naming the dotted parameter, what is found and allowed."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"
LOADED: dict[str, Any] = yaml.safe_load(PARAMS.read_text())


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


def values() -> dict[str, Any]:
    """A copy to change."""
    return copy.deepcopy(LOADED)


def dotted_names(section: dict[str, Any], prefix: str = "") -> list[str]:
    """Every parameter of params.yaml that the types name; free mappings (classes, space, presets) end the walk."""
    names = []
    for name, value in section.items():
        dotted = prefix + name
        names.append(dotted)
        if isinstance(value, dict) and dotted not in {"data.classes", "search.space", "study.arms", "presets"}:
            names += dotted_names(value, f"{dotted}.")
    return names


def holder(everything: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    *parents, name = dotted.split(".")
    for parent in parents:
        everything = everything[parent]
    return everything, name


def load_with(tmp_path: Path, dotted: str, value: Any) -> Config:
    changed = values()
    section, name = holder(changed, dotted)
    section[name] = value
    return load(tmp_path, changed)


def load(tmp_path: Path, everything: dict[str, Any]) -> Config:
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(everything).replace("NaN", ".nan"))  # JSON is YAML, and quick
    return Config.load(path)


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
    ("data.intensity", "rank", "found 'rank'", "'zscore', 'window', 'unit' or 'released'"),
    ("data.classes", {}, "found {}", "at least 1"),
    ("data.classes", {"lesion": [1 << 32]}, "found 4294967296", "a whole number from 0 to 2147483647"),
    ("data.classes", {f"c{k}": [k] for k in range(1, 258)}, "found 257 classes", "255 at most"),
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
    ("training.loss", "focal", "found 'focal'", "'dice_ce' or 'bce_dice'"),
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
    ("training.fraction", 0, "found 0", "greater than 0"),
    ("training.label_noise.drop", 1.5, "found 1.5", "less than or equal to 1"),
    ("study.metric", "hd95", "found 'hd95'", "'dice', 'iou' or 'nsd'"),
    ("study.arms", {"cnn": {}}, "found {'cnn': {}}", "at least 2"),
    ("study.arms", {"cnn": {}, "random": {"data.size": [8, 8]}}, "study.arms.random: found data.size", "optimizer"),
    ("study.arms", {"cnn": {}, "random": {"preset": "rnd"}}, "study.arms.random.preset: found 'rnd'", "random-frozen"),
    ("study.arms", {"cnn": {}, "random": {"optimizer.lr": -1}}, "optimizer.lr: found -1", "greater than 0"),
    ("study.references", ["cmn"], "study:", "references: found 'cmn', allowed: cnn, random"),
    ("study.folds", [1, 1], "study:", "folds: found [1, 1], allowed: each fold once"),
    ("study.folds", [5], "study.folds: found 5", "0 to 4"),
    ("evaluation.bootstrap", 10, "found 10", "greater than or equal to 100"),
    ("evaluation.confidence", 0.5, "found 0.5", "greater than 0.5"),
    # what fields of one section must agree on
    ("data", of_folder({"lesion": [0]}), "data.classes:", "found 0 for lesion, allowed: greater than 0"),
    ("data", of_folder({"a": [1], "b": [1, 2]}), "data.classes:", "[1] are listed under two classes"),
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


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    changed = values()
    changed["optimizer"]["lr"] = -1
    changed["training"]["epochs"] = 0
    with pytest.raises(InputError, match=r"optimizer.lr: found -1.*\n.*training.epochs: found 0"):
        load(tmp_path, changed)


def test_nvme_needs_a_folder(config: Config) -> None:
    with pytest.raises(InputError, match=r"cluster.nvme: found null, allowed: a folder"):
        config.override({"engine.zero": 3, "engine.offload": "nvme"})
    config.override({"engine.zero": 3, "engine.offload": "nvme", "cluster.nvme": "/tmp"})


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 2)])
def test_a_micro_batch_of_one_value_a_channel_is_refused(config: Config, batch_size: int, accumulation: int) -> None:
    """BatchNorm's values are those of one micro-batch over all workers, at the coarsest level of the backbone."""
    changes = {"data.size": [16, 16], "training.batch_size": batch_size, "engine.accumulation": accumulation}
    changes |= {"model.bottleneck": "identity"}
    least = 2 * accumulation
    message = rf"training.batch_size: found {batch_size}, allowed: at least {least}, since data.size is \[16, 16\]"
    with pytest.raises(InputError, match=message):
        config.override(changes)
    config.override(changes | {"training.batch_size": least})
    config.override(changes | {"data.size": [16, 32]})
    config.override(changes | {"model.backbone": "segresnet"})


@pytest.mark.parametrize(
    ("name", "zero", "workers", "runs"),
    [
        ("auto", 0, 4, "torch"),
        ("auto", 1, 1, "torch"),
        ("auto", 2, 1, "torch"),
        ("auto", 1, 2, "deepspeed"),
        ("auto", 2, 8, "deepspeed"),
        ("auto", 3, 1, "deepspeed"),
        ("torch", 1, 8, "torch"),
        ("deepspeed", 0, 1, "deepspeed"),
    ],
)
def test_auto_is_deepspeed_where_zero_has_something_to_do(
    config: Config, name: str, zero: int, workers: int, runs: str
) -> None:
    section = config.override({"engine.name": name, "engine.zero": zero}).engine
    assert section.resolve(workers) == section.model_copy(update={"name": runs})


def test_the_digest_keeps_the_word_auto(config: Config) -> None:
    digests = {config.override({"engine.name": name}).digest("engine") for name in ("auto", "deepspeed", "torch")}
    assert len(digests) == 3
    assert config.engine.name == "auto"


@pytest.mark.parametrize("text", ["", "- a list", "just words"])
def test_a_file_that_is_no_mapping(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=r"params.yaml: found \w+, allowed: the sections paths, llm, data"):
        Config.load(tmp_path / "params.yaml")


def test_credentials_have_no_place_in_the_storage_and_are_not_shown(config: Config) -> None:
    with pytest.raises(InputError, match=r"cluster: storage: found credentials") as raised:
        config.override({"cluster.storage": "s3://AKIA:hidden@bucket/runs"})
    assert "hidden" not in str(raised.value)
    assert config.override({"cluster.storage": "s3://bucket/a@b"}).cluster.storage == "s3://bucket/a@b"


def test_a_file_that_is_no_yaml_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(InputError, match=r"params.yaml: not valid YAML"):
        Config.load(tmp_path / "params.yaml")
    with pytest.raises(InputError, match=r"elsewhere.yaml: no such file"):
        Config.load(tmp_path / "elsewhere.yaml")


TITLE = b"title: LLM4Seg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PARAMS.read_text().encode("utf-16"), "found other bytes than UTF-8 at 0; save the file as UTF-8"),
        ("report: Müller".encode("latin-1"), "found other bytes than UTF-8 at 9; save the file as UTF-8"),
        (b"a: 2024-13-45", "not valid YAML: month must be in 1..12"),
        (b"a: {b: [1", "not valid YAML: while parsing a flow sequence in"),
        (b"a: !!binary /////w==", "found b'.*', allowed: words, numbers, lists and mappings of them"),
        (b"[" * 300_000, "found more than 5,000 brackets"),
        (b"[" * 5_000, "not valid YAML: "),
        (b"a: {b: 1}\nc: 2\na: {b: 2}", r"not valid YAML: found a twice in .*, line 3, column 1"),
        (b"a: {b: 1, b: 2}", "not valid YAML: found b twice"),
        (b"a: &a {b: *a}", "found more than 50 levels or 100,000 values, maybe by an alias within itself"),
        (b"a: " + b"[" * 100 + b"]" * 100, "found more than 50 levels or 100,000 values"),
        (PARAMS.read_bytes().replace(TITLE, b'title: "a\\0b"'), r"report.title: found 'a\\x00b'; must not hold a NUL"),
        (PARAMS.read_bytes().replace(TITLE, TITLE + b'\n  "a\\nb": 1'), r"report.a\\nb: unknown parameter"),
        (PARAMS.read_bytes().replace(TITLE, b"title: 0x" + b"f" * 5000), "report.title: found a number of more than"),
        (
            PARAMS.read_bytes().replace(b"layer: 14 ", b"layer: 0-99999999999 "),
            "layer: found '0-9*'; must rise, by less",
        ),
        (PARAMS.read_bytes().replace(b"cnn: {preset: none}", b"cnn: {preset: [1]}"), r"arms.cnn.preset: found \[1\]"),
    ],
)
def test_a_file_of_odd_bytes_or_values_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        Config.load(tmp_path / "params.yaml")
    assert str(raised.value).isprintable()


def test_plain_values_and_back(config: Config) -> None:
    assert Config.parse(config.plain()) == config


def test_override_is_a_checked_copy(config: Config) -> None:
    before = config.optimizer.lr, config.model.llm.layer
    changed = config.override({"optimizer.lr": 1e-4, "model.llm.layer": 7})
    assert (changed.optimizer.lr, changed.model.llm.layer) == (1e-4, (7,))
    assert (config.optimizer.lr, config.model.llm.layer) == before != (1e-4, (7,))
    with pytest.raises(InputError, match=r"override: optimizer.lr: found -1"):
        config.override({"optimizer.lr": -1})


@pytest.mark.parametrize("dotted", ["optimizer.lrr", "model.llm.layer.x", "zzz", "optimizer"])
def test_override_of_what_is_not_there(dotted: str, config: Config) -> None:
    with pytest.raises(InputError, match=dotted):
        config.override({dotted: 1})


def test_overrides_that_only_agree_together(config: Config) -> None:
    changed = config.override({"engine.zero": 3, "engine.offload": "cpu"})
    assert changed.engine.offload == "cpu"


def test_nothing_can_be_changed_in_place(config: Config) -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.optimizer.lr = 1.0  # type: ignore[misc]


def test_presets(config: Config) -> None:
    assert config.preset("released").model.llm.attention == "causal"
    assert config.preset("none").model.bottleneck == "identity"
    random = config.preset("random").model.llm
    assert (random.weights, random.training) == ("random", "full")
    with pytest.raises(InputError, match=r"presets: found 'mine', allowed: default, released, corrected, cmunext-s"):
        config.preset("mine")


def test_digest_names_a_computation(config: Config) -> None:
    digest = config.digest("model", "training")
    assert digest == Config.load(PARAMS).digest("model", "training")
    assert digest == config.override({"cluster.workers": 2, "optimizer.lr": 0.1}).digest("model", "training")
    assert digest != config.override({"training.seed": 1}).digest("model", "training")
    assert digest != config.digest("model", "training", extra="other data")


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    monkeypatch.chdir(tmp_path.parent)
    loaded = Config.load(Path(tmp_path.name) / "params.yaml")
    assert all(path.is_absolute() and path.is_relative_to(tmp_path) for _, path in loaded.paths)
    assert loaded.data.root == tmp_path / "data" / "raw"


@pytest.mark.parametrize(
    "below", [".dvc/tmp/exps/standalone/tmpab12", ".dvc/tmp/exps/tmpab12", ".dvc/tmp/exps/tmpab12/sub"]
)
def test_what_outlasts_a_run_lies_in_the_main_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """In a temporary workspace of `dvc exp run`; DVC's outputs stay there. LLM4SEG_HOME comes first."""
    monkeypatch.delenv("LLM4SEG_HOME", raising=False)
    folder = tmp_path / below
    folder.mkdir(parents=True)
    loaded = load(folder, values())
    lasting = {"cache": ".cache", "runs": ".runs", "study_runs": ".study"}
    assert {name: path for name, path in loaded.paths if not path.is_relative_to(folder)} == {
        name: tmp_path / path for name, path in lasting.items()
    }
    assert load_with(folder, "paths.cache", "/downloads").paths.cache == Path("/downloads")
    monkeypatch.setenv("LLM4SEG_HOME", str(tmp_path / "home"))
    for place in (folder, tmp_path):
        paths = load(place, values()).paths
        assert [paths.cache, paths.runs, paths.study_runs, paths.model] == [
            *(tmp_path / "home" / name for name in (".cache", ".runs", ".study")),
            place / "outputs" / "model",
        ]


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    loaded = load_with(tmp_path, "data.root", "/somewhere/else")
    assert loaded.data.root == Path("/somewhere/else")


def test_every_preset_is_good_with_these_values(config: Config) -> None:
    assert all(config.preset(name) for name in config.presets)


def test_a_preset_that_does_not_suit_the_images_matters_only_when_it_is_used(tmp_path: Path) -> None:
    """24 x 24 pixels suit a network of stride 4, and not that of preset cmunext-l."""
    changed = values()
    changed["data"]["size"] = [24, 24]
    changed["model"]["cmunext"] = {"dims": [4, 4, 4], "depths": [1, 1, 1], "kernels": [3, 3, 3]}
    loaded = load(tmp_path, changed)
    with pytest.raises(InputError, match=r"data\.size: found 24, allowed: multiples of 16"):
        loaded.preset("cmunext-l")


def test_a_preset_that_does_not_suit_the_layers_matters_only_when_it_is_used(tmp_path: Path) -> None:
    loaded = load_with(tmp_path, "model.llm.dtype", "bf16")
    assert loaded.model.llm.dtype == "bf16"
    with pytest.raises(InputError, match=r"model.llm: dtype: found bf16, allowed: fp32, since training is full"):
        loaded.preset("trained")


def test_workers_of_a_range_may_have_unequal_shares(config: Config) -> None:
    assert config.override({"cluster.workers": [1, 3]}).cluster.workers == (1, 3)
    assert config.override({"cluster.workers": 2}).cluster.workers == (2, 2)


def test_a_nodes_cache_is_at_the_same_place_wherever_a_worker_starts(config: Config) -> None:
    pull = {"cluster.data": "pull", "cluster.storage": "s3://bucket/runs"}
    config.override(pull | {"cluster.node_cache": "~/cache"})
    with pytest.raises(InputError, match=r"node_cache: found cache, allowed: an absolute path, or one from ~"):
        config.override(pull | {"cluster.node_cache": "cache"})


def test_what_a_study_names_is_found_from_the_folder_of_the_file(tmp_path: Path) -> None:
    changed = values()
    changed["study"]["other_data"] = "data/other"
    changed["study"]["arms"]["transfer"] = {"preset": "frozen", "training.init_from": "models/lung"}
    loaded = load(tmp_path, changed)
    assert loaded.study.other_data == tmp_path / "data" / "other"
    assert loaded.arm("transfer").training.init_from == tmp_path / "models" / "lung"
    assert loaded.training.init_from is None


@pytest.mark.parametrize(
    "changes",
    [
        {"training.init_from": "model"},
        {"study.repeats": 1, "study.folds": [0]},
        {"study.repeats": 1, "study.other_data": "x"},
    ],
)
def test_nodes_that_share_nothing_have_only_what_dvc_knows(config: Config, changes: dict[str, Any]) -> None:
    pull = {"cluster.data": "pull", "cluster.storage": "s3://bucket/runs"}
    with pytest.raises(InputError, match=r"found .*, allowed with cluster.data: pull: none"):
        config.override(pull | changes)
