"""The report's sections on search, study, cross-validation and ensembles."""

import re

from llm4seg.config import Config
from llm4seg.utils.files import read_json, write_json
from pipelines.study import write_results
from tests.finished_run import write_search
from tests.report_page import page, words
from tests.study_factory import folded, studied


def test_shows_what_the_search_found(copy: Config) -> None:
    assert "Found by the search" not in words(page(copy))
    write_search(copy.paths.search, copy.search)
    found = "model.llm.layer: 7 , optimizer.lr: 0.001 , the best of 3 trials by validation Dice (0.625)."
    assert found in words(page(copy))
    assert page(copy).count('aria-label="The best validation Dice at each layer') == 1


def test_shows_the_study_when_there_is_one(copy: Config) -> None:
    page_without = page(copy)
    assert 'id="study"' not in page_without
    effects = {"cnn": 0.0, "random": 0.0, "llm": 0.05}
    section = {"study.repeats": 4, "study.arms": {name: {} for name in effects}, "study.references": ["cnn", "random"]}
    write_results(copy.override(section), studied(effects, 4, 20))
    html = page(copy)
    text = words(html)
    assert re.search(
        r"llm: \+\d\.\d Dice points against random, 95 % interval .* 4 paired runs: better than random", text
    )
    assert "12 of 12 runs have finished" in text
    assert html.count("<svg") == page_without.count("<svg") + 2
    assert not re.findall(r"\bNone\b|\bnan\b", text)
    assert html == page(copy)


def test_shows_at_which_look_a_study_stopped_and_a_log_likelihood(copy: Config) -> None:
    section = {"study.repeats": 5, "study.arms": {"cnn": {}, "llm": {}}, "study.references": ["cnn"]}
    runs = [(run, record if run.repeat < 3 else None) for run, record in studied({"cnn": 0.0, "llm": 0.3}, 5, 12)]
    for run, record in runs:
        for row in record["rows"] if record else []:
            row["log_likelihood"] = -0.1 + (0.01 if run.arm == "llm" else 0) + 1e-4 * (run.repeat + len(row["case"]))
    write_results(copy.override(section | {"study.looks": [3, 5]}), runs)
    text = words(page(copy))
    assert "6 of 10 runs have finished; 4 were not needed" in text
    assert "The study stopped at look 1 of 2, after 3 of 5 repeats: every arm can be told from cnn" in text
    write_results(copy.override(section | {"study.metric": "log_likelihood"}), runs)
    text = words(page(copy))
    assert "llm: +0.0100 nats a pixel of log-likelihood against cnn" in text
    assert "Differences and their intervals in nats a pixel" in text


def test_shows_the_cross_validation_of_a_single_arm(copy: Config) -> None:
    """With no arm to compare it with, there are no verdicts and no charts."""
    page_without = page(copy)
    folds = {"study.repeats": 1, "study.folds": [0, 1], "study.arms": {"model": {}}, "study.references": ["model"]}
    write_results(copy.override(folds), folded({"model": 0.0}, 2, 6))
    html = page(copy)
    assert re.search(r"model mean 12 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] 0\.\d{3} 0\.\d{3}", words(html))
    assert "Dice over the 12 cases of all folds together" in words(html)
    assert html.count("<svg") == page_without.count("<svg")
    assert "2 of 2 runs have finished" in words(html)
    assert not re.findall(r"\bNone\b|\bnan\b", words(html))


def test_shows_what_options_gain_and_what_an_ensemble_has_seen(copy: Config) -> None:
    metrics = read_json(copy.paths.metrics)
    assert "Option" not in words(page(copy))
    gain = {"mean": 0.012, "std": 0.01, "low": 0.002, "high": 0.0225, "n": 9}
    metrics["gains"] = {"ensemble": dict.fromkeys(("dice", "nsd", "false_lesions"), gain) | {"classes": {}}}
    write_json(copy.paths.metrics, metrics | {"models": {"count": 5, "seen": 3}})
    text = words(page(copy.override({"evaluation.models": ["/home/me/seed-0", "/home/me/seed-1"]})))
    assert "[seed-0, seed-1]" in text
    assert "/home/me" not in text
    assert "the ensemble, over the mean of its models, 1.20 [0.20, 2.25] 1.20 [0.20, 2.25] 0.01 [0.00, 0.02]" in text
    assert "3 of these cases were in the training or validation of a model" in text
    assert "The mean of 5 models reaches a mean Dice of" in text


def test_shows_a_study_with_too_few_runs_for_any_p(copy: Config) -> None:
    effects = {"cnn": 0.0, "llm": 0.05}
    section = {"study.repeats": 1, "study.arms": {name: {} for name in effects}, "study.references": ["cnn"]}
    write_results(copy.override(section), studied(effects, 1, 1, slices=12))
    text = words(page(copy))
    assert "1 paired run: too few runs to say whether it differs from cnn" in text
    assert "All 12 cases are of one patient or volume" in text


def test_shows_a_study_of_several_datasets_and_of_a_single_unit(copy: Config) -> None:
    effects = {"cnn": 0.0, "llm": 0.05}
    section = {"study.repeats": 3, "study.arms": {name: {} for name in effects}, "study.references": ["cnn"]}
    runs = studied(effects, 3, 1)
    for _, record in runs:
        assert record is not None
        more = [{**row, "case": f"c{at}", "group": f"c{at}"} for row in record["rows"] for at in range(6)]
        record["rows"] += [{**row, "data": "other"} for row in more]
    write_results(copy.override(section), runs)
    text = words(page(copy))
    assert "drawn llm cnn 3 1 1 cases" in text
    assert "other llm cnn 3 6 6 patients" in text
    assert "too few cases to say whether it differs from cnn" in text
    assert not re.findall(r"\bNone\b|\bnan\b", text)
