"""Log-likelihoods: against NumPy by hand, torch's cross-entropy, and in a study's records."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.data.split import Split, write_split
from llm4seg.datasets.cases import slices
from llm4seg.evaluation.evaluate import evaluate_cases
from llm4seg.evaluation.likelihood import SMALLEST, add_log_likelihood, log_likelihoods
from llm4seg.inference.prepared import Member
from llm4seg.study import runner
from llm4seg.study.arms import PlannedRun
from llm4seg.study.pairs import class_scores, pairs
from llm4seg.study.results import case_table, compared_by_metric, results
from llm4seg.study.run_store import RunStore
from llm4seg.study.verdict import verdict
from tests.finished_run import ByIntensity, config_at, raw_case, write_cases
from tests.study_factory import studied

TWO = LabelScheme(("a", "b"))


def test_of_a_softmax_it_is_torchs_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 6), torch.randint(0, 3, (5, 6), dtype=torch.uint8)
    sums, pixels = log_likelihoods(logits.softmax(0), labels, TWO, 3)
    assert (pixels, len(sums), sums[0]) == (30, 2, sums[1])
    assert -sums[0] / pixels == pytest.approx(float(functional.cross_entropy(logits[None], labels[None].long())), 1e-5)


def test_of_a_softmax_by_hand_and_without_ignored_pixels() -> None:
    scheme = LabelScheme(("a", "b"), ignore=True)
    probabilities = torch.tensor([[[0.7, 0.2, 0.1]], [[0.2, 0.5, 0.1]], [[0.1, 0.3, 0.8]]])
    labels = torch.tensor([[0, IGNORE, 2]], dtype=torch.uint8)
    sums, pixels = log_likelihoods(probabilities, labels, scheme, 3)
    assert pixels == 2
    assert sums == pytest.approx([np.log(0.7) + np.log(0.8)] * 2)


def test_of_regions_each_has_its_own() -> None:
    scheme = LabelScheme(("whole", "core"), regions=((1, 2), (2,)), regions_class_order=(1, 2), ignore=True)
    probabilities = torch.tensor([[[0.9, 0.6, 0.2, 0.5]], [[0.1, 0.7, 0.4, 0.5]]])
    labels = torch.tensor([[1, 2, 0, IGNORE]], dtype=torch.uint8)
    sums, pixels = log_likelihoods(probabilities, labels, scheme, 2)
    assert pixels == 3
    assert sums == pytest.approx([np.log(0.9 * 0.6 * 0.8), np.log(0.9 * 0.7 * 0.6)])


def test_of_one_sigmoid_and_a_sure_mistake() -> None:
    labels = torch.tensor([[1, 0]], dtype=torch.uint8)
    sums, _ = log_likelihoods(torch.tensor([[[0.0, 0.25]]]), labels, LabelScheme(("a",)), 1)
    assert sums == pytest.approx([np.log(SMALLEST) + np.log(0.75)])


def test_a_volumes_is_the_mean_over_its_slices_pixels(tmp_path: Path) -> None:
    """On images that are resized by nothing: the network's own logits at every pixel."""
    config = config_at(tmp_path, {"data.size": [16, 16], "data.intensity": "unit"})
    drawn = np.random.default_rng(0).integers(0, 2, (16, 16, 3))
    data = write_cases(config, slices(raw_case("v", drawn)), "a")
    network = ByIntensity([0.0, 0.3])
    rows, volumes = evaluate_cases(network, data, [*data.cases], config.evaluation)
    rows, volumes = add_log_likelihood(rows, volumes, [Member(network, data)], config.evaluation)
    expected = []
    for case_id in data.cases:
        logits = network(data.resampled(case_id)[0][None]).detach()
        expected.append(-float(functional.cross_entropy(logits, data.original(case_id)[1][None].long())))
    assert [row["log_likelihood"] for row in rows] == pytest.approx(expected, rel=1e-4)
    assert [row["log_likelihood"] for row in volumes] == pytest.approx([np.mean(expected)], rel=1e-4)
    assert [row["dice"] for row in volumes]


@pytest.mark.parametrize("metric", ["dice", "log_likelihood"])
def test_a_run_is_measured_by_it_only_where_the_study_asks(
    tmp_path: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_at(tmp_path, {"data.size": [16, 16], "study.metric": metric})
    drawn = np.random.default_rng(0).integers(0, 2, (4, 16, 16))
    data = write_cases(config, [raw_case(f"c{k}", labels) for k, labels in enumerate(drawn)], "a")
    write_split(config.paths.split, Split("by hand", 0, (), (), tuple(data.cases), (), ()))
    model: Any = ByIntensity([0.0, 0.2])
    model.load_weights = lambda weights: None
    monkeypatch.setattr(runner, "final_weights", lambda *about: {})
    monkeypatch.setattr(runner, "assemble", lambda *about: model)
    measured = runner.evaluate_run(config, "run", torch.device("cpu"))
    assert all(("log_likelihood" in row) == (metric == "log_likelihood") for row in measured["rows"])


def with_likelihoods(effect: float) -> Any:
    runs = studied({"cnn": 0.0, "llm": 0.0}, 4, 12)
    random = np.random.default_rng(0)
    for run, record in runs:
        assert record is not None
        for row in record["rows"]:
            row["log_likelihood"] = -0.1 + (effect if run.arm == "llm" else 0) + float(random.normal(0, 0.001))
    return runs


@pytest.mark.parametrize(("effect", "word"), [(0.01, "better"), (-0.01, "worse")])
def test_more_log_likelihood_is_better(effect: float, word: str) -> None:
    changes = {"study.repeats": 4, "study.only": ["cnn", "llm"], "study.metric": "log_likelihood"}
    config = config_at(Path("/nowhere"), changes | {"evaluation.bootstrap": 200})
    runs = with_likelihoods(effect)
    result = results(config, runs)
    (row,) = result.comparisons.to_dict("records")
    line = verdict({str(key): value for key, value in row.items()}, "log_likelihood", 0.95)
    paired = pairs(class_scores(case_table(runs).assign(block=None), "log_likelihood"), "llm", "cnn")
    assert line.startswith(f"llm: {paired['difference'].mean():+.4f} nats a pixel of log-likelihood against cnn, 95 % ")
    assert line.endswith(f"4 paired runs: {word} than cnn")
    assert row["superiority"] == (1.0 if effect > 0 else 0.0)


def test_a_run_that_was_measured_without_it_is_made_again(tmp_path: Path) -> None:
    changes = {"study.repeats": 4, "study.only": ["cnn", "llm"], "paths.study_runs": str(tmp_path / "runs")}
    config = config_at(tmp_path, changes)
    named = [runner.NamedRun(PlannedRun(arm, 0, None), config, arm) for arm in ("cnn", "llm")]
    for run, (_, record) in zip(named, with_likelihoods(0.01), strict=False):
        assert record is not None
        if run.name == "cnn":
            record = {**record, "rows": [{"data": "drawn", "case": "x", "dice": 0.5}]}
        RunStore(config).put(run.name, record)
    assert not runner.jobs(config, named)
    assert runner.without_metric(config, named) is None
    wanting = config.override({"study.metric": "log_likelihood"})
    assert [*runner.jobs(wanting, named)] == ["cnn"]
    line = "1 finished runs were measured without log_likelihood, which study.metric wants: they are trained again"
    assert runner.without_metric(wanting, named) == line


def test_a_plan_compares_metrics_that_all_runs_have(tmp_path: Path) -> None:
    config = config_at(tmp_path, {"study.repeats": 4, "study.only": ["cnn", "llm"], "evaluation.bootstrap": 200})
    runs = with_likelihoods(0.01)
    assert set(compared_by_metric(config, runs)) == {"dice", "log_likelihood"}
    (_, record), *_ = runs
    for row in record["rows"]:
        del row["log_likelihood"]
    assert set(compared_by_metric(config, runs)) == {"dice"}
