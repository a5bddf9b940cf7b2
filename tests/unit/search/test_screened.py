"""`search.screen`: the first points have given layers, and without a reliable measure it is refused."""

from pathlib import Path

import pytest

from llm4seg.analysis import screen
from llm4seg.config import Config
from llm4seg.search.screened import check_screen
from llm4seg.search.searcher import OptunaSearcher
from llm4seg.utils.errors import InputError
from pipelines.search import search
from tests.unit.search.test_search import BOTTLENECK, ENDLESS, FINITE, KIND, LAYER, PARAMS, RATE, run_through, section

FIRST = [{LAYER: 7}, {LAYER: 2}, {LAYER: 9}]


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
@pytest.mark.parametrize("space", [FINITE, ENDLESS], ids=["finite", "endless"])
def test_the_first_points_have_the_given_layers_and_the_samplers_other_values(algorithm: str, space: object) -> None:
    seen = run_through(OptunaSearcher(section(space=space, algorithm=algorithm), FIRST), 12)
    assert [point[LAYER] for point in seen[:3]] == [7, 2, 9]
    assert all(KIND in point for point in seen)
    assert len({str(point) for point in seen}) == 12


def test_a_layer_of_a_list_and_under_a_condition() -> None:
    space = {BOTTLENECK: ["identity", "llm"], LAYER: {"choice": [3, 4, [5, 6]], "when": {BOTTLENECK: "llm"}}}
    suggester = OptunaSearcher(section(space=space | {RATE: [1, 2]}), [{BOTTLENECK: "llm", LAYER: 4}])
    point = suggester.suggest("0")["overrides"]
    assert (point[BOTTLENECK], point[LAYER]) == ("llm", 4)


def test_an_interrupted_search_goes_on_with_the_first_points_that_are_left(tmp_path: Path) -> None:
    undisturbed = run_through(OptunaSearcher(section(space=ENDLESS), FIRST), 8)
    first, second = OptunaSearcher(section(space=ENDLESS), FIRST), OptunaSearcher(section(space=ENDLESS))
    begun = run_through(first, 2)
    first.save(str(tmp_path / "state"))
    second.restore(str(tmp_path / "state"))
    assert begun + run_through(second, 6) == undisturbed


def test_without_a_reliable_measure_it_is_refused_before_any_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "RELIABLE", ())
    screening = Config.load(PARAMS).override({"search.trials": 3, "search.screen": True})
    with pytest.raises(
        InputError, match=r"^search.screen: found true, allowed: false, since none of the screen's meas"
    ):
        search(screening)
    monkeypatch.setattr(screen, "RELIABLE", ("probe",))
    check_screen()


@pytest.mark.parametrize("changes", [{"algorithm": "grid"}, {"space": {RATE: [1, 2]}}], ids=["grid", "no layer"])
def test_it_needs_layers_and_an_order(changes: dict[str, object]) -> None:
    with pytest.raises(
        InputError, match=r"screen: found true, allowed: with model.llm.layer in the space and algorithm"
    ):
        section(screen=True, **changes)
