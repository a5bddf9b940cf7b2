"""The summary that ends `make repro`."""

import pytest

from llm4seg.config import Config
from llm4seg.report.wording import DASH, number
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, remove
from pipelines.summary import summary, table


def test_summary_shows_the_classes_and_where_things_are(
    run: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.paths.report.parent.parent)
    summary(run)
    out, metrics = capsys.readouterr().out, read_json(run.paths.metrics)
    for name, values in metrics["classes"].items():
        assert name in out
        assert f"{values['dice']['mean']:.2f} [{values['dice']['low']:.2f}, {values['dice']['high']:.2f}]" in out
    assert "outputs/report.html" in out
    assert "outputs/evaluation/overlays" in out


@pytest.mark.parametrize(("value", "shown"), [(-0.04, "0.0"), (-0.05001, "-0.1"), (0.04, "0.0"), (None, DASH)])
def test_a_number_that_is_shown_as_zero_has_no_sign(value: float | None, shown: str) -> None:
    assert number(value, 1) == shown


def test_summary_without_numbers_shows_dashes(run: Config) -> None:
    metrics = read_json(run.paths.metrics)
    metrics["classes"]["lesion 1"]["dice"] = {"mean": None, "std": None, "low": None, "high": None, "n": 0}
    assert next(iter(table(metrics).columns[1].cells)) == "-"


@pytest.mark.parametrize(("missing", "stage"), [("metrics", "evaluate"), ("report", "report")])
def test_summary_names_the_stage_to_run(copy: Config, missing: str, stage: str) -> None:
    remove(getattr(copy.paths, missing))
    with pytest.raises(InputError, match=f"not there yet; run `dvc repro {stage}`"):
        summary(copy)


def test_summary_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = "torch", "monai", "pandas", "numpy", "matplotlib"
    code = f"import pipelines.summary, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
