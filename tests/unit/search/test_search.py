"""A search without trainings: the space, which point comes next, and what is made of the trials."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm4seg.search.driver as cluster_search
from llm4seg.config import Config
from llm4seg.config.schema import Search, points
from llm4seg.report.search_charts import draw_search
from llm4seg.search import results
from llm4seg.search.results import SearchResult
from llm4seg.search.searcher import OptunaSearcher
from llm4seg.search.trial_tables import EPOCH_COLUMNS, collect, importance, pareto
from llm4seg.utils.errors import InputError
from tests.tiny import PARAMS

KIND, WIDTH, LAYER, RATE = "model.llm.adapter.kind", "model.llm.adapter.width", "model.llm.layer", "optimizer.lr"
BOTTLENECK, CLIP = "model.bottleneck", "optimizer.clip_norm"
FINITE: dict[str, Any] = {
    LAYER: {"randint": [0, 9]},
    KIND: ["linear", "bottleneck"],
    WIDTH: {"choice": [32, 64], "when": {KIND: "bottleneck"}},
}
ENDLESS = {**FINITE, RATE: {"loguniform": [0.001, 0.01]}}


def section(**changes: Any) -> Search:
    base = {"search.trials": 100, "search.space": FINITE}
    return Config.load(PARAMS).override(base | {f"search.{name}": one for name, one in changes.items()}).search


def run_through(suggester: OptunaSearcher, trials: int, epochs: int = 10) -> list[dict[str, Any]]:
    """Trials whose Dice is best at layer 7 with a bottleneck of 64; a second objective grows with the layer."""
    seen = []
    for number in range(trials):
        suggested = suggester.suggest(str(number))
        if suggested == suggester.FINISHED:
            break
        point = suggested["overrides"]
        seen.append(point)
        dice = 0.9 - 0.05 * abs(point[LAYER] - 7) - (0.1 if point[KIND] == "linear" else 0.001 * (64 - point[WIDTH]))
        result = {"epoch": epochs, "best_dice": dice, "parameters": 100 + point[LAYER]}
        suggester.on_trial_result(str(number), result)
        suggester.on_trial_complete(str(number), result)
    return seen


def test_points_of_a_space_with_a_condition() -> None:
    found = points(section().space)
    assert found is not None
    assert len(found) == 10 * (1 + 2)
    assert all((WIDTH in point) == (point[KIND] == "bottleneck") for point in found)
    assert points(section(space=ENDLESS).space) is None


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({WIDTH: {"choice": [1], "when": {KIND: "bottleneck"}}}, f"{WIDTH}.when: found {KIND}, which does not stand"),
        ({KIND: ["linear"], WIDTH: {"choice": [1], "when": {KIND: "bottleneck"}}}, "found 'bottleneck', which is no"),
    ],
)
def test_a_condition_names_a_value_of_what_stands_above(space: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        section(space=space)


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
@pytest.mark.parametrize("objectives", [["val_dice"], ["val_dice", "parameters"]])
def test_a_finite_space_is_gone_through_without_repeats(algorithm: str, objectives: list[str]) -> None:
    seen = run_through(OptunaSearcher(section(algorithm=algorithm, objectives=objectives)), 100)
    assert len(seen) == 30
    assert len({str(point) for point in seen}) == 30


def conditional_rate() -> dict[str, Any]:
    """A space of which one point, the CNN alone, has no number to tell it from itself."""
    return {BOTTLENECK: ["identity", "llm"], RATE: {"loguniform": [0.001, 0.01], "when": {BOTTLENECK: "llm"}}}


def tell_cnn_is_best(suggester: OptunaSearcher, trial_id: str, point: dict[str, Any]) -> None:
    result: dict[str, Any] = {"epoch": 10, "best_dice": 0.9 if point[BOTTLENECK] == "identity" else 0.1}
    suggester.on_trial_complete(trial_id, result)


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_space_with_bounds_repeats_no_point_either(algorithm: str, tmp_path: Path) -> None:
    """Two at a time, and with the search saved and restored in the middle."""
    suggester, seen = OptunaSearcher(section(space=conditional_rate(), algorithm=algorithm)), []
    suggester.set_max_concurrency(2)
    for number in range(0, 24, 2):
        pair = [suggester.suggest(str(number + one))["overrides"] for one in (0, 1)]
        seen += pair
        if number == 12:
            suggester.save(str(tmp_path / "state"))
            suggester = OptunaSearcher(section(space=conditional_rate(), algorithm=algorithm))
            suggester.set_max_concurrency(2)
            suggester.restore(str(tmp_path / "state"))
        for one, point in enumerate(pair):
            tell_cnn_is_best(suggester, str(number + one), point)
    assert len({str(point) for point in seen}) == len(seen) == 24


def test_points_that_cannot_be_counted_end_the_search_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm4seg.config.schema.search.MOST_POINTS", 10)
    assert points(section().space) is None
    seen = run_through(OptunaSearcher(section()), 100)
    assert len({str(point) for point in seen}) == len(seen) == 30


def test_notes_and_tune_agree_where_points_cannot_be_counted() -> None:
    suggester = OptunaSearcher(section(space=conditional_rate()))
    suggester.reconcile({"noted": {BOTTLENECK: "identity"}})
    drawn = []
    for number in range(12):
        drawn.append(suggester.suggest(str(number))["overrides"])
        tell_cnn_is_best(suggester, str(number), drawn[-1])
    assert {point[BOTTLENECK] for point in drawn} == {"llm"}


def test_a_grid_of_too_many_points_is_refused() -> None:
    space = {"training.seed": {"randint": [0, 2**31]}, LAYER: [1, 2]}
    with pytest.raises(InputError, match="found grid, allowed: tpe or random above 10000 points"):
        section(space=space, algorithm="grid")
    assert len(run_through(OptunaSearcher(section(space={**space, **FINITE})), 5)) == 5


def test_values_are_as_written_and_within_bounds() -> None:
    space = {**ENDLESS, LAYER: [3, "4-6", [7, 9]], "optimizer.weight_decay": {"uniform": [0.1, 0.2]}}
    suggester = OptunaSearcher(section(space=space, algorithm="random"))
    suggester.set_max_concurrency(30)
    drawn = [suggester.suggest(str(number))["overrides"] for number in range(30)]
    assert {str(point[LAYER]) for point in drawn} == {"3", "4-6", "[7, 9]"}
    assert all(0.001 <= point[RATE] <= 0.01 for point in drawn)
    assert all(0.1 <= point["optimizer.weight_decay"] <= 0.2 for point in drawn)


def test_tpe_learns_and_the_seed_decides() -> None:
    tries = {seed: run_through(OptunaSearcher(section(space=ENDLESS, seed=seed)), 40) for seed in (0, 1)}
    for seen in tries.values():
        late = [point for point in seen[20:] if abs(point[LAYER] - 7) <= 2]
        assert len(late) > 12
    assert tries[0] != tries[1]
    assert run_through(OptunaSearcher(section(space=ENDLESS)), 40) == tries[0]


def test_goes_on_as_it_was_saved(tmp_path: Path) -> None:
    undisturbed = OptunaSearcher(section(space=ENDLESS))
    expected = run_through(undisturbed, 16)
    first, second = OptunaSearcher(section(space=ENDLESS)), OptunaSearcher(section(space=ENDLESS))
    begun = run_through(first, 8)
    first.save(str(tmp_path / "state"))
    second.restore(str(tmp_path / "state"))
    assert begun + run_through(second, 8) == expected


def test_notes_cut_short_by_a_kill_lose_no_trial(tmp_path: Path) -> None:
    first, second = OptunaSearcher(section()), OptunaSearcher(section())
    seen = run_through(first, 8)
    first.save(str(tmp_path / "state"))
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-100])
    second.restore(str(tmp_path / "state"))
    second.reconcile({str(number): point for number, point in enumerate(seen)})
    assert len(run_through(second, 100)) == 22


def test_trials_stopped_early_and_failed_ones_count_as_such() -> None:
    suggester = OptunaSearcher(section(space=ENDLESS))
    results: list[dict[str, Any]]
    results = [{"epoch": 2, "best_dice": 0.1}, {"error": "no"}, {"epoch": 10, "best_dice": 0.9}]
    for number, result in enumerate(results):
        suggester.suggest(str(number))
        suggester.on_trial_complete(str(number), result)
    assert [trial.state.name for trial in suggester._study.trials] == ["PRUNED", "FAIL", "COMPLETE"]


def test_no_more_at_a_time_than_allowed() -> None:
    suggester = OptunaSearcher(section())
    suggester.set_max_concurrency(2)
    assert suggester.suggest("0")
    assert suggester.suggest("1")
    assert suggester.suggest("2") is None
    suggester.on_trial_complete("0", {"epoch": 10, "best_dice": 0.5})
    assert suggester.suggest("2")


def test_agrees_with_tune_after_a_kill() -> None:
    """A trial that Tune has not noted is suggested again; one that it has noted, and this not, is not."""
    suggester, other = OptunaSearcher(section(algorithm="grid")), points(section().space)
    assert other is not None
    lost = suggester.suggest("lost")["overrides"]
    noted = next(point for point in other if point != lost)
    suggester.reconcile({"noted": noted})
    seen = run_through(suggester, 100)
    assert lost in seen
    assert noted not in seen
    assert len(seen) == 29
    suggester.on_trial_complete("noted", {"epoch": 10, "best_dice": 0.5})


def test_the_budget_ends_the_search() -> None:
    assert len(run_through(OptunaSearcher(section(space=ENDLESS, total_epochs=35)), 100)) == 4
    assert run_through(OptunaSearcher(section(space=ENDLESS, minutes=1e-9)), 100) == []


def test_pareto_keeps_what_no_other_beats() -> None:
    several = section(objectives=["val_dice", "parameters", "latency"])
    columns = {"val_dice": [0.9, 0.8, 0.8, 0.7, None], "parameters": [10, 5, 5, 6, 1], "latency": [1, 1, 2, 0.5, 1]}
    assert list(pareto(pd.DataFrame(columns), several)) == [True, True, False, True, False]


def made_up(several: Search) -> pd.DataFrame:
    """Trials in which the layer decides, and a width that is not there counts for nothing."""
    random, rows = np.random.default_rng(0), []
    for number in range(40):
        layer, kind = int(random.integers(10)), random.choice(["linear", "bottleneck"])
        dice = 0.9 - 0.05 * abs(layer - 7) + random.normal(0, 0.01)
        status = "stopped" if number % 4 == 0 else "finished"
        rows.append({"number": number, LAYER: layer, KIND: kind, WIDTH: 32 if kind == "bottleneck" else None})
        rows[-1] |= {"status": status, "epochs": 3, "val_dice": dice, "parameters": 10 + layer, "error": ""}
    trials = pd.DataFrame(rows)
    return trials.assign(pareto=pareto(trials, several))


def test_what_matters_is_found() -> None:
    several = section(objectives=["val_dice", "parameters"])
    found = importance(made_up(several), several)
    assert set(found) == {LAYER, KIND}
    assert found[LAYER] > 2 * found[KIND]
    assert importance(made_up(several).head(3), several) == {}


def tunes_results(values: list[Any]) -> list[Any]:
    """As Tune gives them: a trial a value of the parameter CLIP, all as good as they are late."""
    results = []
    for number, value in enumerate(values):
        rows = pd.DataFrame([dict.fromkeys(EPOCH_COLUMNS, 0.1) | {"epoch": 1, "time_this_iter_s": 1.0}])
        metrics = {"epoch": 1, "best_dice": 0.1 + number / 20}
        config = {"overrides": {CLIP: value}}
        table = rows.drop(columns="seconds")
        results.append(SimpleNamespace(metrics=metrics, config=config, error=None, metrics_dataframe=table))
    return results


def test_a_trial_that_died_before_any_result_is_a_failed_row() -> None:
    """Tune knows neither its config nor its metrics then."""
    results = tunes_results([0.5, 1.0])
    results[1] = SimpleNamespace(metrics=None, config=None, error=RuntimeError("gone"), metrics_dataframe=None)
    found = collect(results, section(space={CLIP: [0.5, 1.0]}, epochs=1), 3)
    assert list(found.trials["status"]) == ["finished", "failed"]
    assert found.best == {CLIP: 0.5}


def test_a_trial_whose_process_died_too_often_says_so() -> None:
    results = tunes_results([0.5, 1.0])
    results[1].error = RuntimeError("Traceback\n  ...\nOSError: [Errno 28] No space left on device\n")
    error = collect(results, section(space={CLIP: [0.5, 1.0]}, epochs=1), retries=3).trials["error"].iloc[1]
    assert error == (
        "a worker failed more often than cluster.max_failures = 3 allows: OSError: [Errno 28] No space left on device"
    )


@pytest.mark.parametrize("values", [[None, 0.5, 1.0], [None, 1.0]])
def test_a_null_that_was_chosen_is_a_value(values: list[Any], tmp_path: Path) -> None:
    chosen = section(space={CLIP: values}, epochs=1)
    found = collect(tunes_results((values * 4)[:8]), chosen, retries=0)
    assert set(found.importance) == {CLIP}
    assert found.best == {CLIP: (values * 4)[7]}
    results.write(tmp_path / "search", found)
    read = results.read(tmp_path / "search")
    assert read is not None
    assert read.best == found.best
    assert set(read.trials[CLIP]) == {json.dumps(value) for value in values}
    assert "null" in draw_search(read)["slices"]


def test_a_name_is_shared_by_equal_searches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    store = {"layers": ["a"], "code": "1"}
    length = "train-{0.epochs}-{0.patience}"
    monkeypatch.setattr(cluster_search, "run_name", lambda config: length.format(config.training))
    monkeypatch.setattr(cluster_search, "layers_sha256", lambda config: store["layers"])
    monkeypatch.setattr(cluster_search, "code_digest", lambda *rooms: store["code"])
    config = Config.load(PARAMS)
    longer, warm = config.override({"training.epochs": 72}), config.override({"search.warm_start": True})
    impatient = {"training.patience": 5}
    name = cluster_search.search_name(config)
    assert cluster_search.search_name(longer) == name  # a trial's length is search.epochs
    assert cluster_search.search_name(config.override(impatient)) == name  # and search.asha's matter
    names = {name, cluster_search.search_name(warm)}
    names.add(cluster_search.search_name(warm.override({"training.epochs": 72})))  # of the CNN from which all start
    names.add(cluster_search.search_name(warm.override(impatient)))
    for what, other in (("layers", ["b"]), ("code", "2")):
        monkeypatch.setitem(store, what, other)
        names.add(cluster_search.search_name(config))
    assert len(names) == 6


def test_a_search_that_may_choose_the_llm_is_bound_to_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an interrupted one, no trial is mixed with trials on another LLM's layers."""
    monkeypatch.setattr(
        cluster_search,
        "named_store",
        lambda folder, name: SimpleNamespace(norm_sha256="norm", sha256=lambda layer: f"{layer} of {name}"),
    )
    alone = Config.load(PARAMS).override({BOTTLENECK: "identity", "search.trials": 1, "search.space": {RATE: [1, 2]}})
    assert cluster_search.layers_sha256(alone) == []
    either = alone.override({"search.space": {BOTTLENECK: ["identity", "llm"], LAYER: [3, 4]}})
    layers = ["norm", *(f"{layer} of default" for layer in (3, 4, 14))]
    assert cluster_search.layers_sha256(either) == layers
    two = either.override({"llm.sources": {"qwen": "models/qwen"}})
    two = two.override({"search.space": {BOTTLENECK: ["identity", "llm"], "model.llm.source": ["default", "qwen"]}})
    assert cluster_search.layers_sha256(two) == ["norm", "14 of default", "qwen", "norm", "14 of qwen"]


def test_every_chart_is_drawn() -> None:
    several = section(objectives=["val_dice", "parameters"])
    trials = made_up(several)
    trials.loc[trials[KIND] == "linear", LAYER] = None  # as where it counts only with a bottleneck: a horizontal
    epochs = pd.DataFrame(
        [{"number": n, "epoch": e, "val_dice": d * e / 3} for n, d in trials["val_dice"].items() for e in (1, 2, 3)]
    )
    drawn = draw_search(SearchResult(several, {}, trials, epochs, {LAYER: 0.9, KIND: 0.1}))
    assert set(drawn) == {"layers", "slices", "curves", "importance", "pareto"}
    assert "bottleneck, width 32" in drawn["layers"]
    assert draw_search(SearchResult(several, {}, trials, epochs, {LAYER: 0.9, KIND: 0.1})) == drawn
    assert "mathdefault" not in drawn["slices"]  # a logarithmic axis has numbers, too
    named = draw_search(SearchResult(several, {}, trials.replace("linear", "a$_$"), epochs, {LAYER: 0.9}))
    assert "a$_$" in named["layers"]
    assert "a$_$" in named["slices"]
