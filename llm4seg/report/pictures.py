"""The report's charts as SVG files beside the page."""

from collections.abc import Mapping
from pathlib import Path

from llm4seg.analysis.results import AnalysisResult
from llm4seg.report.analysis_charts import draw_analysis
from llm4seg.report.charts import as_file, training_curves
from llm4seg.report.inputs import Inputs
from llm4seg.report.page import distributions, kept_epoch
from llm4seg.report.search_charts import draw_search
from llm4seg.report.study_charts import draw_study
from llm4seg.search.results import SearchResult
from llm4seg.study.results import StudyResult
from llm4seg.utils.files import replacing


def training_charts(inputs: Inputs) -> dict[str, str]:
    """Curves of the training, and the Dice of every test case and volume, as SVG by name."""
    return {"training": training_curves(inputs.history, kept_epoch(inputs)), **distributions(inputs)}


def comparison_charts(
    search: SearchResult | None, study: StudyResult | None, analysis: AnalysisResult | None
) -> dict[str, str]:
    """Charts of the search, the study and the analysis, as far as there was one, as SVG by name."""
    charts = {f"search-{name}": svg for name, svg in (draw_search(search) if search else {}).items()}
    charts |= {"analysis": draw_analysis(analysis)} if analysis else {}
    return charts | {f"study-{name}": svg for name, svg in (draw_study(study) if study else {}).items()}


def write_pictures(folder: Path, charts: Mapping[str, str]) -> None:
    """Write each chart as NAME.svg; the folder appears whole or not at all."""
    with replacing(folder) as partial:
        partial.mkdir()
        for name, svg in charts.items():
            (partial / f"{name}.svg").write_text(as_file(svg), encoding="utf-8")
