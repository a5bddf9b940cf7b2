"""One table over data sets: cells and intervals against NumPy and SciPy, three formats, and what is refused."""

import csv as csv_module
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llm4seg.config import Config
from llm4seg.study.results import results, write
from llm4seg.tools.table.formats import csv, latex, markdown, write_table
from llm4seg.tools.table.published import FILE, published
from llm4seg.tools.table.result_table import ResultTable, build_table
from llm4seg.tools.table.scores import Source, check_methods, read_scores, sources_in
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import write_json
from pipelines.table import main, named
from tests.study_factory import studied
from tests.tiny import PARAMS

EFFECTS = {"cnn": 0.0, "random": 0.0, "llm": 0.05}
CONFIG = Config.load(PARAMS).override(
    {
        "study.repeats": 5,
        "evaluation.bootstrap": 200,
        "study.arms": {name: {} for name in EFFECTS},
        "study.references": ["cnn"],
    }
)


def write_study(folder: Path, data: str, seed: int, effects: Mapping[str, float] = EFFECTS, repeats: int = 5) -> Path:
    """Write a simulated study of one data set, as its stage does; arm `llm` helps some patients more than others."""
    runs, more = studied(effects, repeats, 12, seed=seed), np.random.default_rng(seed).normal(0, 0.02, 12)
    for planned, record in runs:
        for row in (record or {})["rows"]:
            row["data"] = data
            row["dice"] += more[int(row["group"][1:])] if planned.arm == "llm" else 0
    write(folder, results(CONFIG, runs))
    return folder


def write_run(folder: Path, seed: int, scores: Mapping[str, float], **model: Any) -> Path:
    """Write of a trained run what the table reads: metrics.json, model.json and the scores of cases."""
    changed = CONFIG.override({"training.seed": seed, **{f"model.{name}": value for name, value in model.items()}})
    plain = changed.plain()
    about = {"config": {name: plain[name] for name in ("model", "optimizer", "training", "engine")}}
    write_json(folder / "model" / "model.json", {**about, "data": {"name": "own"}, "llm": {"source": "hf://x/Tiny"}})
    write_json(folder / "metrics.json", {})
    rows = [{"case": case, "group": case, "class": "1", "dice": score} for case, score in scores.items()]
    (folder / "evaluation").mkdir()
    pd.DataFrame(rows).to_csv(folder / "evaluation" / "cases.csv", index=False)
    return folder


def table_of(*folders: Path, reference: str | None = None, with_published: bool = False) -> ResultTable:
    sources = [source for folder in folders for source in sources_in(folder, None)]
    check_methods(sources)
    return build_table(read_scores(sources, None, None, 6), CONFIG, reference, with_published)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three studies, each of a data set."""
    root = tmp_path_factory.mktemp("studies")
    for number in range(3):
        write_study(root / f"study{number}", f"data {number}", number)
    return root


@pytest.fixture(scope="module")
def whole(three: Path) -> ResultTable:
    """The table of these, with published scores."""
    return table_of(three, with_published=True)


def by_hand(study_csv: Path, arm: str) -> np.ndarray:
    """The scores of an arm, (runs, cases): of each case the mean over its classes."""
    table = pd.read_csv(study_csv)
    own = table[table["arm"] == arm]
    return own.pivot_table(index="repeat", columns="case", values="dice", aggfunc="mean").to_numpy()


def anova(differences_RU: np.ndarray) -> tuple[float, float, float]:
    """Effect, standard error and Satterthwaite's degrees of freedom of a crossed table with random rows and columns.

    Restricted maximum likelihood is the same where no variance would come out negative, as in these tables.
    """
    runs, units = differences_RU.shape
    mean = differences_RU.mean()
    of_run, of_unit = differences_RU.mean(1, keepdims=True), differences_RU.mean(0, keepdims=True)
    run = units * ((of_run - mean) ** 2).sum() / (runs - 1)
    unit = runs * ((of_unit - mean) ** 2).sum() / (units - 1)
    rest = ((differences_RU - of_run - of_unit + mean) ** 2).sum() / ((runs - 1) * (units - 1))
    assert min(run, unit) > rest
    square = run + unit - rest
    df = square**2 / (run**2 / (runs - 1) + unit**2 / (units - 1) + rest**2 / ((runs - 1) * (units - 1)))
    return float(mean), float((square / (runs * units)) ** 0.5), float(df)


def test_means_are_over_cases_and_then_over_runs(three: Path, whole: ResultTable) -> None:
    cells = whole.cells.set_index(["data", "arm"])
    for number in range(3):
        for arm in EFFECTS:
            of_runs = by_hand(three / f"study{number}" / "study.csv", arm).mean(axis=1)
            row = cells.loc[(f"data {number}", arm)]
            assert (row["mean"], row["std"]) == pytest.approx((of_runs.mean(), of_runs.std(ddof=1)), abs=1e-6)
            assert row["runs"] == 5


def test_intervals_are_those_of_a_crossed_analysis_of_variance(three: Path, whole: ResultTable) -> None:
    cells = whole.cells.set_index(["data", "arm"])
    for number in range(3):
        file = three / f"study{number}" / "study.csv"
        differences = by_hand(file, "llm") - by_hand(file, "cnn")
        effect, error, df = anova(differences)
        row = cells.loc[(f"data {number}", "llm")]
        assert row["difference"] == pytest.approx(effect, abs=1e-6)
        half = error * stats.t.ppf(0.975, df)
        assert (row["low"], row["high"]) == pytest.approx((effect - half, effect + half), abs=2e-5)


def test_the_studys_own_comparisons_are_what_the_table_has(three: Path, whole: ResultTable) -> None:
    known = pd.read_csv(three / "study1" / "comparisons.csv").set_index("arm")
    cells = whole.cells[whole.cells["data"] == "data 1"].set_index("arm")
    for name in ("difference", "low", "high", "p", "p_holm"):
        found, expected = (table.loc[["random", "llm"], name].tolist() for table in (cells, known))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)  # files have six digits


def test_best_is_who_beats_every_other_method_after_holm_over_all_pairs(whole: ResultTable, tmp_path: Path) -> None:
    cells = whole.cells
    assert {row.arm for row in cells.itertuples() if row.best} == {"llm"}
    alike = table_of(write_study(tmp_path / "alike", "d", 3, {"cnn": 0.0, "llm": 0.05, "twin": 0.05}))
    assert not alike.cells["best"].any()  # both beat cnn, and neither the other
    few = table_of(write_study(tmp_path / "few", "d", 3, repeats=2))
    assert not few.cells["best"].any()
    assert "†" in markdown(few)


def test_over_data_sets_it_is_students_t_over_their_means(three: Path, whole: ResultTable) -> None:
    over = whole.over.set_index("arm")
    means = [
        (by_hand(three / f"study{n}" / "study.csv", "llm") - by_hand(three / f"study{n}" / "study.csv", "cnn")).mean()
        for n in range(3)
    ]
    expected = stats.ttest_1samp(means, 0)
    row = over.loc["llm"]
    assert (row["difference"], row["p"]) == pytest.approx((np.mean(means), expected.pvalue), rel=1e-3)
    ends = expected.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high), abs=1e-5)
    assert row["method"] == "mixed model"


def test_markdown_latex_and_csv_show_the_same(three: Path, whole: ResultTable, tmp_path: Path) -> None:
    files = write_table(whole, tmp_path / "out")
    assert [file.name for file in files] == ["table.md", "table.tex", "table.csv"]
    of_runs = by_hand(three / "study0" / "study.csv", "llm").mean(axis=1)
    shown = f"{100 * of_runs.mean():.1f}", f"{100 * of_runs.std(ddof=1):.1f}"
    assert f"| llm | **{shown[0]} ± {shown[1]}**<br>+" in files[0].read_text(encoding="utf-8")
    assert rf"llm & \textbf{{{shown[0]} $\pm$ {shown[1]}}} &" in files[1].read_text(encoding="utf-8")
    rows = list(csv_module.DictReader(io.StringIO(files[2].read_text(encoding="utf-8"))))
    (row,) = [one for one in rows if (one["method"], one["data"]) == ("llm", "data 0")]
    assert float(row["mean"]) == pytest.approx(of_runs.mean(), abs=1e-6)
    assert (row["best"], row["interval"], row["reference"]) == ("True", "mixed model", "cnn")
    with pytest.raises(InputError, match=r"-o: found .*out.pdf, allowed: a name that ends in .md, .tex, .csv, or a"):
        write_table(whole, tmp_path / "out.pdf")


def test_latex_escapes_names_and_has_as_many_columns_in_each_row(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", "50%_a&b", 0, {"cnn": 0.0, "x_1 {#}": 0.0})
    table = build_table(read_scores(sources_in(folder, None), None, None, 6), CONFIG, None, False)
    text = latex(table)
    assert r"50\%\_a\&b" in text
    assert r"x\_1 \{\#\}" in text
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {1}
    assert r"\|" in markdown(build_table(read_scores(sources_in(folder, "a|b"), None, None, 6), CONFIG, None, False))


def test_published_scores_are_gray_and_say_where_they_are_from(whole: ResultTable) -> None:
    text = markdown(whole)
    assert '<span style="color: gray">93.9 [a]</span>' in text
    assert "(second-hand)" in text
    assert "The same protocol as ours: no" in text
    assert r"\textcolor{gray}{87.66 [a]}" in latex(whole)
    assert "93.9" not in markdown(replace(whole, published=[]))
    rows = [one for one in csv_module.DictReader(io.StringIO(csv(whole))) if one["source"]]
    assert {one["mean"] for one in rows} == {"0.8766", "0.939"}
    assert {one["second_hand"] for one in rows} == {"True"}


def test_published_scores_are_those_that_are_known_and_no_others() -> None:
    """The values as a list of its own; the frozen layers 1 to 16 in their order."""
    layers = [76.70, 77.10, 77.43, 77.72, 77.64, 77.38, 77.44, 77.51, 77.44, 77.28, 77.64, 77.50, 77.53, 77.58]
    layers += [77.69, 77.53]
    second_hand = {("iou", "2-D average", 80.63), ("dice", "2-D average", 87.66), ("iou", "isic", 83.39)}
    second_hand |= {("iou", "tnscui", 79.93), ("dice", "kvasir-seg", 93.9)}
    found = [one for metric in ("dice", "iou", "nsd") for one in published(metric)]
    assert {(one.metric, one.data, one.points) for one in found if one.second_hand} == second_hand
    figure = {one.method: one.points for one in found if not one.second_hand}
    assert [figure.pop(f"CMUNeXt + LLaMA layer {layer}, frozen") for layer in range(1, 17)] == layers
    deep = [figure.pop(f"CMUNeXt + DeepSeek layer {layer}, frozen") for layer in (1, 10, 19, 28)]
    assert deep == [77.25, 77.27, 77.36, 77.32]
    assert sorted(figure.values()) == [76.87, 77.06, 77.27, 77.57, 77.79]
    assert len(json.loads(FILE.read_text(encoding="utf-8"))["numbers"]) == len(found) == 30


def test_trained_runs_are_paired_by_seed_and_cases(tmp_path: Path) -> None:
    random, cases = np.random.default_rng(0), [f"c{n}" for n in range(8)]
    scores = {"identity": random.uniform(0.5, 0.7, (3, 8)), "llm": random.uniform(0.6, 0.8, (3, 8))}
    for kind, of_runs in scores.items():
        for seed, of_cases in enumerate(of_runs):
            write_run(tmp_path / f"{kind}{seed}", seed, dict(zip(cases, of_cases, strict=True)), bottleneck=kind)
    table = table_of(tmp_path)
    assert table.methods == ["cmunext", "cmunext + Tiny layer 14, pretrained, frozen"]
    row = table.cells.set_index("arm").loc[table.methods[1]]
    assert row["mean"] == pytest.approx(scores["llm"].mean(), abs=1e-6)
    assert row["std"] == pytest.approx(scores["llm"].mean(1).std(ddof=1), abs=1e-6)
    assert row["difference"] == pytest.approx((scores["llm"] - scores["identity"]).mean(), abs=1e-6)
    assert (row["cases"], row["runs"]) == (8, 3)


def test_test_parts_are_told_apart_and_shared_cases_are_told(tmp_path: Path) -> None:
    for kind in ("identity", "llm"):
        for part, cases in enumerate((["a", "b"], ["b", "c"])):
            write_run(tmp_path / f"{kind}{part}", 0, dict.fromkeys(cases, 0.5 + 0.1 * part), bottleneck=kind)
    table = table_of(tmp_path)
    assert table.cells["runs"].tolist() == [2, 2]
    assert "own: test parts share cases" in markdown(table)


def test_slices_of_one_patient_are_told(tmp_path: Path) -> None:
    runs = studied({"cnn": 0.0, "llm": 0.0}, 3, 1, slices=8)
    write(tmp_path / "study", results(CONFIG, runs))
    assert "- drawn: All 8 cases are of one patient or volume: " in markdown(table_of(tmp_path / "study"))


def test_data_on_which_nothing_was_trained_is_kept_apart(tmp_path: Path) -> None:
    runs = studied(EFFECTS, 3, 8)
    for _, record in runs:
        assert record is not None
        record["rows"] = [*record["rows"], *({**row, "data": "elsewhere"} for row in record["rows"])]
    write(tmp_path / "study", results(CONFIG, runs))
    table = table_of(tmp_path / "study")
    assert table.data_sets == ["drawn", "elsewhere (trained on drawn)"]
    assert table.over.empty


def test_a_name_goes_before_the_arms_of_a_study(tmp_path: Path) -> None:
    write_study(tmp_path / "a", "d", 0)
    write_study(tmp_path / "b", "d", 1)
    sources = [*sources_in(tmp_path / "a", "unet"), *sources_in(tmp_path / "b", "cmunext")]
    table = build_table(read_scores(sources, None, None, 6), CONFIG, "unet: cnn", False)
    assert table.methods == [f"{name}: {arm}" for name in ("unet", "cmunext") for arm in EFFECTS]
    assert named("unet=runs/a") == ("unet", "runs/a")
    with pytest.raises(InputError, match=r"--reference: found cnn, allowed: unet: cnn, unet: random"):
        build_table(read_scores(sources, None, None, 6), CONFIG, "cnn", False)


def test_broken_folders_are_refused_in_one_line(three: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: found no study.json \(of a study\) and no metrics.json \(of a"):
        sources_in(tmp_path / "empty", None)
    twice = [*sources_in(three / "study0", None), *sources_in(three / "study0", None)]
    with pytest.raises(InputError, match=r"cnn on data 0, repeat or seed 0: found in .*NAME=FOLDER"):
        read_scores([twice[0], Source(twice[1].folder, None, "again")], None, None, 6)
    with pytest.raises(InputError, match=r"study.csv: found no column 'nsd'"):
        read_scores(twice[:1], "nsd", None, 6)
    write_json(tmp_path / "run" / "metrics.json", {})
    with pytest.raises(InputError, match=r"model.json: no such file"):
        read_scores(sources_in(tmp_path / "run", None), None, None, 6)
    write_run(tmp_path / "one", 0, {"a": 0.5})
    write_run(tmp_path / "two", 1, {"a": 0.5}, **{"llm.residual": "gate"})
    with pytest.raises(InputError, match=r"differ in model.llm.residual; allowed: runs of one method, or a name"):
        check_methods([*sources_in(tmp_path / "one", None), *sources_in(tmp_path / "two", None)])


def test_the_command_prints_and_writes_and_refuses(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(three), "--params", str(PARAMS), "-o", str(tmp_path / "table.csv"), "--reference", "random"])
    printed = capsys.readouterr().out
    assert printed.startswith("| method | data 0 | data 1 | data 2 | over data sets |")
    assert "| random (reference) |" in printed
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").count("\n") == 12
    with pytest.raises(SystemExit, match=r"^table: -o: found .*x.pdf, allowed"):
        main([str(three), "--params", str(PARAMS), "-o", str(tmp_path / "x.pdf")])
