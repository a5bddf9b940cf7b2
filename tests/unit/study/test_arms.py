"""Which runs a study has: pairs that differ in nothing but the arm, and the most informative ones first."""

import pytest
import torch

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import read_split
from llm4seg.models.saved import save_trained
from llm4seg.study.arms import PlannedRun, planned_runs, write_splits
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json


@pytest.fixture
def studying(config: Config) -> Config:
    return config.override({"study.repeats": 3})


def test_default_arms_begin_with_the_same_cnn_under_one_seed(studying: Config) -> None:
    data = Prepared(studying.paths.prepared)
    states = {
        run.arm: assemble(run.config(studying), data).state_dict() for run in planned_runs(studying) if run.repeat == 1
    }
    assert set(states) == set(studying.study.arms)
    cnn = states["cnn"]
    for arm, state in states.items():
        assert all(torch.equal(state[name], tensor) for name, tensor in cnn.items()), arm
    other = assemble(PlannedRun("cnn", 2, None).config(studying), data).state_dict()
    assert not torch.equal(other["encoder.stem.0.weight"], cnn["encoder.stem.0.weight"])


def test_arms_differ_in_nothing_but_their_overrides(studying: Config) -> None:
    configs = [PlannedRun(arm, 2, None).config(studying).plain() for arm in ("cnn", "llm-trained")]
    for values in configs:
        assert values["training"]["seed"] == 2
        del values["model"]["bottleneck"], values["model"]["llm"]
    assert configs[0] == configs[1]


def test_every_repeat_is_finished_in_all_arms_before_the_next(studying: Config) -> None:
    runs = planned_runs(studying)
    arms = len(studying.study.arms)
    assert [run.repeat for run in runs] == [repeat for repeat in range(3) for _ in range(arms)]
    assert [run.arm for run in runs[:2]] == ["cnn", "random"]
    assert len({(run.arm, run.repeat) for run in runs}) == len(runs) == 3 * arms


def test_more_repeats_keep_the_first_runs(studying: Config) -> None:
    more = planned_runs(studying.override({"study.repeats": 5}))
    assert more[: len(planned_runs(studying))] == planned_runs(studying)


def test_early_runs_share_neither_seed_nor_fold(studying: Config) -> None:
    folded = studying.override({"study.folds": [0, 1, 2]})
    blocks = list(dict.fromkeys((run.repeat, run.fold) for run in planned_runs(folded)))
    assert len(blocks) == 9
    assert blocks[:3] == [(0, 0), (1, 1), (2, 2)]


def test_each_fold_is_the_test_part_once(studying: Config) -> None:
    folded = studying.override({"study.folds": [0, 1, 2, 3, 4]})
    write_splits(folded)
    splits = [read_split(PlannedRun("cnn", 0, fold).config(folded).paths.split) for fold in range(5)]
    tested = [case for split in splits for case in split.test]
    assert sorted(tested) == sorted(Prepared(folded.paths.prepared).cases)
    assert all(not set(split.train) & set(split.test) for split in splits)


def test_layers_of_arms_are_fetched_when_the_study_is_on(config: Config) -> None:
    arms = {"cnn": {"preset": "none"}, "early": {"preset": "frozen", "model.llm.layer": "3-4"}}
    changes = {"study.arms": arms, "study.references": ["cnn"]}
    assert config.override(changes).layers_used() == {"default": [1]}
    assert config.override({**changes, "study.repeats": 1}).layers_used() == {"default": [1, 3, 4]}


def test_transfer_begins_with_the_other_models_weights_where_they_fit(config: Config) -> None:
    from safetensors.torch import save_file

    data, folder = Prepared(config.paths.prepared), config.paths.model
    other = assemble(config.override({"training.seed": 9, "model.bottleneck": "identity"}), data)
    weights = {
        name: tensor for name, tensor in other.trainable_state_dict().items() if not name.startswith("decoder.head")
    }
    path = config.paths.runs.parent / "weights.safetensors"
    save_file(weights, path)
    save_trained(folder, path, config, data, "torch")
    begun = assemble(config.override({"training.init_from": str(folder)}), data).state_dict()
    plain = assemble(config, data).state_dict()
    for name, tensor in begun.items():
        assert torch.equal(tensor, weights.get(name, plain[name])), name


def test_transfer_from_another_encoder_is_refused(config: Config) -> None:
    from safetensors.torch import save_file

    data, path = Prepared(config.paths.prepared), config.paths.runs.parent / "weights.safetensors"
    other = assemble(config.override({"model.cmunext.dims": [4, 8, 16]}), data)
    save_file(other.trainable_state_dict(), path)
    save_trained(config.paths.model, path, config, data, "torch")
    with pytest.raises(InputError, match=r"training.init_from: found .* whose model has no encoder\."):
        assemble(config.override({"training.init_from": str(config.paths.model)}), data)


def test_a_stage_that_is_off_leaves_an_empty_result(studying: Config) -> None:
    from pipelines.study import study

    off = studying.override({"study.repeats": 0})
    study(off)
    assert sorted(file.name for file in off.paths.study.iterdir()) == ["comparisons.csv", "study.json"]
    said = read_json(off.paths.study / "study.json")
    assert (said["runs"], said["verdicts"]) == (0, [])


def test_only_some_arms_take_part_and_the_model_as_it_is_is_one(studying: Config) -> None:
    config = studying.override({"study.only": ["model", "llm"], "study.references": ["model"], "study.repeats": 1})
    runs = planned_runs(config)
    assert planned_runs(config.override({"study.references": ["cnn"]})) == runs  # the first one is the reference then
    assert [run.arm for run in runs] == ["model", "llm"]
    assert runs[0].config(config).model == config.model
    folds = config.preset("folds")
    assert [(run.arm, run.fold) for run in planned_runs(folds)] == [("model", fold) for fold in range(5)]
    assert (folds.study.keep, folds.preset("default").study.keep) == ("weights", "none")
