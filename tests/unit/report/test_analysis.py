"""The analysis on the report's page."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from llm4seg.analysis.analyze import analyze
from llm4seg.analysis.results import AnalysisResult, read, write
from llm4seg.config import Config
from llm4seg.report.analysis_charts import cell_edges
from llm4seg.report.inputs import Inputs, read_inputs
from llm4seg.report.page import render
from pipelines.report import pictures
from tests.finished_run import finished_run
from tests.unit.analysis.planted import CopiesMask, planted, planted_data, subject


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return read_inputs(finished_run(tmp_path_factory.mktemp("run")))


def analyzed(folder: Path, block: Any) -> tuple[Config, AnalysisResult]:
    """An analysis of a planted network, written and read."""
    config, data, split = planted_data(folder, cases=16)
    config = config.override({"analysis.shifts": 5, "analysis.field_cases": 1})
    written = analyze(subject(planted(block), data), split, config.analysis, config.evaluation, title=None)
    write(config.paths.analysis, written)
    result = read(config.paths.analysis)
    assert result is not None
    return config, result


def words(html: str) -> str:
    return " ".join(re.sub(r"<(style|svg).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL).split())


@pytest.mark.parametrize("block", [CopiesMask, None])
def test_the_section_has_sentences_table_and_chart(inputs: Inputs, tmp_path: Path, block: Any) -> None:
    config, result = analyzed(tmp_path, block)
    page = render(replace(inputs, analysis=result))
    text = words(page)
    assert 'href="#analysis"' in page
    for line in result.summary["verdicts"]:
        assert line.replace("'", "&#39;") in text
    auroc = result.summary["classes"]["any"]["encoder"]["auroc"]
    assert f"encoder {auroc['mean']:.2f} [{auroc['low']:.2f}, {auroc['high']:.2f}]" in text
    assert ("Each class before and after the block" in text) == (block is not None)
    pictures(config)
    root = ElementTree.parse(config.paths.pictures / "analysis.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_without_an_analysis_there_is_no_section(inputs: Inputs) -> None:
    assert inputs.analysis is None
    assert "#analysis" not in render(inputs)


def test_edges_go_around_the_cells_of_a_mask() -> None:
    one = np.zeros((3, 4), dtype=bool)
    one[1, 2] = True
    corners = {point for line in cell_edges(one) for point in line}
    assert corners == {(1.5, 0.5), (2.5, 0.5), (1.5, 1.5), (2.5, 1.5)}
    assert len(cell_edges(one)) == 4
    assert len(cell_edges(np.ones((3, 4), dtype=bool))) == 2 * (3 + 4)
