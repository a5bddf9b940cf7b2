"""Presets as options for `dvc exp run`, and that DVC reads back what a value is written as."""

import json
import shutil
import subprocess
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.config import preset_changes
from llm4seg.config.schema import Model
from llm4seg.datasets.btcv import ORGANS as BTCV
from llm4seg.utils.errors import InputError
from pipelines.preset import differing_defaults, missing_data, options, unfit_loss
from pipelines.preset import main as print_presets
from tests.import_graph import ROOT

PARAMS = ROOT / "params.yaml"
VALUES = yaml.safe_load(PARAMS.read_text())
READ_BACK = ("llm", "data", "split", "model", "optimizer", "training", "study", "evaluation")


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


def test_presets_are_printed_as_words_that_dvc_reads(tmp_path: Path) -> None:
    misread, shipped, params = [], Config.parse(VALUES), Path(shutil.copy(PARAMS, tmp_path))  # where no data are
    for name in shipped.presets:
        words = options(params, [name]).split()
        read, meant = with_options(tmp_path, words[1::2]), shipped.preset(name).resolved(tmp_path)
        if set(words[::2]) != {"-S"} or any(getattr(read, one) != getattr(meant, one) for one in READ_BACK):
            misread.append(name)
    assert misread == []


def test_several_presets_are_one_line_in_which_the_later_ones_win(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), "none", "random"])
    print_presets()
    expected = "-S model.bottleneck=llm -S model.llm.weights=random -S model.llm.training=full\n"
    assert capsys.readouterr().out == expected


def test_default_is_what_this_file_has_for_all_that_presets_change(config: Config) -> None:
    assert config.preset("default") == config
    default = set(config.presets["default"])
    of_models = {
        name: set(changes) for name, changes in config.presets.items() if all("model." in one for one in changes)
    }
    assert [name for name, changes in of_models.items() if not changes <= default] == []
    assert {"none", "random", "released", "cmunext-l"} <= set(of_models)


PICTURES = ("busi", "tnscui", "tn3k", "isic2018", "kvasir-seg", "cvc-clinicdb")
VOLUMES = ("btcv", "acdc", "msd")
RECIPES = {"recipe-2d": PICTURES, "recipe-slices": VOLUMES}
RECIPES_3D = ("recipe-btcv", "nnunet-like")
NETWORKS_3D = ("cmunext", "dynunet", "unetr", "swin-unetr")
LLMS = ("llama-3.2-1b", "deepseek-r1-qwen-1.5b", "smollm2-135m", "qwen2.5-0.5b")


ENCODERS = {
    "vit-base": "hf://google/vit-base-patch16-224",
    "dinov2-base": "hf://facebook/dinov2-base",
    "dinov3-vits16": "hf://facebook/dinov3-vits16-pretrain-lvd1689m",
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_vision_transformer_takes_an_llms_place(config: Config, name: str) -> None:
    """Whatever was there before: the positions and attention of decoders are none of its own. It has 12 layers."""
    row = config.override(preset_changes(config.presets, "default", "released", name, "frozen"))
    assert (row.llm.source, row.llm.sha256) == (ENCODERS[name], None)
    assert (row.model.llm.position, row.model.llm.attention) == ("native", "bidirectional")
    assert max(row.model.llm.layer) < 12


@pytest.mark.parametrize("data", [*PICTURES, *VOLUMES])
def test_a_row_of_the_papers_table_is_one_command(tmp_path: Path, data: str) -> None:
    """Data, recipe, LLM and arm; data and LLM are where its owner has them. Any recipe goes with any data set."""
    params = Path(shutil.copy(PARAMS, tmp_path))  # where no data are
    for recipe, llm in product(RECIPES, LLMS):
        words = options(params, ["default", data, recipe, llm, "frozen"]).split()
        config = with_options(tmp_path, words[1::2])
        assert config.data.root.relative_to(tmp_path).parts[:3] == ("data", "raw", data)
        assert (config.data.size, config.data.spatial_dims, config.data.classes) == ((256, 256), 2, None)
        assert (config.optimizer.name, config.training.batch_size) == ("sgd", 8)
        assert config.llm.source.startswith("package://" if llm == "smollm2-135m" else "hf://")
        assert config.model.bottleneck == "llm"


@pytest.mark.parametrize("data", VOLUMES)
def test_volumes_are_trained_on_in_3d_by_the_same_data_preset(config: Config, data: str) -> None:
    """With each network, recipe, LLM and arm: what their patches are is checked when the config is made."""
    arms = ("none", "frozen", "trained", "random", "released", "lora")
    for network, recipe, llm, arm in product(NETWORKS_3D, RECIPES_3D, LLMS, arms):
        row = config.override(preset_changes(config.presets, "default", network, data, recipe, llm, arm))
        assert (row.data.spatial_dims, row.data.grid, row.model.backbone) == (3, "spacing", network)
        assert row.data.root.parts[-3:] == ("data", "raw", data)
        assert row.known_size == (recipe == "recipe-btcv")


@pytest.mark.parametrize("names", [["btcv", "recipe-btcv"], ["msd", "nnunet-like"], ["demo-3d"]])
def test_a_row_of_volumes_is_one_command(tmp_path: Path, names: list[str]) -> None:
    """DVC reads back what the presets say, `auto` in the place of a list and small numbers, too."""
    shipped = Config.parse(VALUES)
    meant = shipped.override(preset_changes(shipped.presets, "default", *names)).resolved(tmp_path)
    read = with_options(tmp_path, options(Path(shutil.copy(PARAMS, tmp_path)), ["default", *names]).split()[1::2])
    assert [name for name in READ_BACK if getattr(read, name) != getattr(meant, name)] == []


def test_recipe_btcv_is_unetrs(config: Config) -> None:
    """As many steps: 5000 epochs of 24 cases with 4 patches each in batches of 4; of ours, validation's are less."""
    row = config.override(preset_changes(config.presets, "default", "unetr", "btcv", "recipe-btcv"))
    assert (row.data.spacing, row.input_size) == ((1.5, 1.5, 2.0), (96, 96, 96))
    assert (row.data.intensity, row.data.window) == ("window", (-175, 250))
    assert (row.optimizer.name, row.optimizer.lr, row.optimizer.weight_decay) == ("adamw", 1e-4, 1e-5)
    training = row.training
    assert training.epochs * training.patch.per_case == 5000 * 4
    assert training.epochs / training.validate_every == 5000 / 100  # validations
    assert (training.batch_size, training.patch.share, training.patch.foreground) == (4, 0.5, "voxel")
    # with turns, flips along 1 and 2 give all images that UNETR's along 0, 1 and 2 give
    assert (training.augment.flip, training.augment.quarter_turns, len(row.data.paired)) == ((1, 2), True, 2)


def test_recipes_are_the_papers_and_one_for_several_classes(tmp_path: Path) -> None:
    paper, slices = (with_options(tmp_path, options(PARAMS, [name]).split()[1::2]) for name in RECIPES)
    assert (paper.training.loss, paper.training.epochs, paper.split.rule) == ("bce_dice", 300, "random")
    assert (slices.training.loss, slices.training.epochs, slices.split.rule) == ("dice_ce", 150, "auto")
    assert paper.data.intensity == "released"


UNREAD = ("training.patch.", "training.focal_gamma", "training.tversky.")  # with these losses, and data.grid: resize


def test_a_data_set_with_its_recipe_is_the_same_after_any_other(config: Config) -> None:
    """DVC leaves an experiment's values in params.yaml: whatever they were, each of split, optimizer and training."""
    names = [(one, recipe) for recipe, data in RECIPES.items() for one in data]
    names += [*product(VOLUMES, RECIPES_3D), ("demo-3d",)]
    rows = [preset_changes(config.presets, "default", *one) for one in names]
    values = config.model_dump(mode="json")
    every = {name for section in ("split", "optimizer", "training") for name in dotted(values[section], section)}
    every = {name for name in every if not name.startswith(UNREAD)}
    assert [sorted(every - row.keys()) for row in rows] == [[]] * len(rows)
    plain = [config.override(row) for row in rows]
    for before, after in permutations(range(len(rows)), 2):
        assert as_read(config.override(rows[before] | rows[after])) == as_read(plain[after])


def as_read(config: Config) -> dict[str, Any]:
    """A config's values without those of `data` and `training` that it does not read."""
    values = config.plain()
    unread = {"window"} if config.data.intensity != "window" else set()
    unread |= {"size"} if config.data.grid == "spacing" else {"spacing"}
    values["data"] = {name: value for name, value in values["data"].items() if name not in unread}
    if config.data.grid == "resize":
        del values["training"]["patch"]
    return values


def dotted(values: dict[str, Any], name: str) -> list[str]:
    """The dotted names of a section's parameters."""
    names = []
    for key, value in values.items():
        names += dotted(value, f"{name}.{key}") if isinstance(value, dict) else [f"{name}.{key}"]
    return names


def test_volumes_with_a_loss_of_one_class_are_said() -> None:
    rows = product((*PICTURES, *VOLUMES), RECIPES)
    assert [(data, recipe) for data, recipe in rows if unfit_loss(PARAMS, ["default", data, recipe])] == [
        (data, "recipe-2d") for data in VOLUMES
    ]
    (line,) = unfit_loss(PARAMS, ["msd", "recipe-2d"])
    assert line.endswith("for one class: decathlon with several needs recipe-slices")


def test_a_value_behind_presets_wins(tmp_path: Path) -> None:
    """As of docs/datasets.md: a training that begins with the model of another, though recipes begin with none."""
    words = options(PARAMS, ["busi", "recipe-2d"]).split()[1::2]
    assert with_options(tmp_path, [*words, "training.init_from=models/kvasir-seg"]).training.init_from is not None
    left = with_options(tmp_path, ["training.init_from=a", "split.rule=file", "split.file=val.txt", *words])
    assert (left.training.init_from, left.split.file) == (None, None)


@pytest.mark.parametrize("data", VOLUMES)
def test_flips_of_left_and_right_only_where_each_class_has_a_counterpart(config: Config, data: str) -> None:
    preset = config.preset(data)
    left_right = 1  # of axial slices, whose columns run to the right
    assert (left_right in preset.training.augment.flip) == bool(preset.data.paired)
    names = {name for pair in preset.data.paired for name in pair}
    sides = {name for name in BTCV if name.startswith(("left_", "right_"))}
    assert names == (sides if data == "btcv" else set())


@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize("in_dvc", [False, True])
def test_data_are_found_in_their_folder_or_in_an_archive_beside_it(tmp_path: Path, ending: str, in_dvc: bool) -> None:
    """Also where DVC knows them and `dvc pull` is to fetch them; without any, a line says where they are to be."""
    params, place = Path(shutil.copy(PARAMS, tmp_path)), f"data/raw/busi{ending}"
    (line,) = missing_data(params, ["default", "busi"])
    assert line.startswith("data/raw/busi: no such folder, nor an archive of that name (.zip, .tar, .tar.gz, .tgz): ")
    assert "-S data.root=data/raw/busi " in options(params, ["default", "busi"])
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / f"{place}{'.dvc' if in_dvc else ''}").touch()
    assert f"-S data.root={place} " in options(params, ["default", "busi"])
    assert missing_data(params, ["default", "busi"]) == missing_data(params, ["default", "frozen"]) == []


def test_a_refused_value_is_no_hindrance_where_a_preset_replaces_it(tmp_path: Path) -> None:
    text = PARAMS.read_text()
    left = tmp_path / "params.yaml"
    left.write_text(text.replace("bottleneck: llm ", "bottleneck: lm "))
    assert options(left, ["default", "none"]) == options(PARAMS, ["default", "none"])
    left.write_text(text.replace("layer: 14 ", "layer: -1 "))
    with pytest.raises(
        InputError, match=r"params.yaml with random corrected: model.llm.layer.0: found -1; .*; if an exp"
    ):
        options(left, ["random", "corrected"])


def test_a_preset_that_there_is_not_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), "frozen", "forzen"])
    with pytest.raises(SystemExit, match=r"^preset: presets: found 'forzen', allowed: "):
        print_presets()
    assert not capsys.readouterr().out


def test_dvc_takes_every_backbones_name(tmp_path: Path) -> None:
    taken = [with_options(tmp_path, [f"model.backbone={name}"]).model.backbone for name in Model.sections()]
    assert taken == [*Model.sections()]


def test_dvc_takes_values_of_earlier_versions(tmp_path: Path) -> None:
    config = with_options(tmp_path, ["training.loss=paper", "model.llm.position=paper"])
    assert (config.training.loss, config.model.llm.position) == ("bce_dice", "released")


def test_a_preset_keeps_its_old_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for name in ("paper-exact", "released"):
        monkeypatch.setattr("sys.argv", ["preset", "--params", str(PARAMS), name])
        print_presets()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


def with_options(folder: Path, options: list[str]) -> Config:
    """The project's parameters as `dvc exp run -S ...` would change them; JSON, since DVC is quicker with it."""
    from dvc.utils.hydra import apply_overrides

    path = folder / "params.json"
    path.write_text(json.dumps(VALUES))
    apply_overrides(path, options)
    return Config.load(path)


def test_defaults_that_the_last_commit_has_otherwise_are_named(tmp_path: Path) -> None:
    """Or an experiment would undo what somebody chose and committed, without a word."""
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS.read_text().replace("backbone: cmunext ", "backbone: unet "))
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (line,) = differing_defaults(file)
    assert line == (
        "default sets model.backbone to cmunext, but the last commit has unet: change presets.default with it"
    )
