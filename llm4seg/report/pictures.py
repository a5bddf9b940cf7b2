"""The charts of the search and the study as SVG files beside the page."""

from pathlib import Path

from llm4seg.report.charts import as_file
from llm4seg.report.search_charts import draw_search
from llm4seg.report.study_charts import draw_study
from llm4seg.search.results import SearchResult
from llm4seg.study.results import StudyResult
from llm4seg.utils.files import replacing


def write_pictures(folder: Path, search: SearchResult | None, study: StudyResult | None) -> None:
    """Write search-*.svg and study-*.svg, as far as there was a search or a study; the folder is written atomically."""
    charts = {f"search-{name}": svg for name, svg in (draw_search(search) if search else {}).items()}
    charts |= {f"study-{name}": svg for name, svg in (draw_study(study) if study else {}).items()}
    with replacing(folder) as partial:
        partial.mkdir()
        for name, svg in charts.items():
            (partial / f"{name}.svg").write_text(as_file(svg), encoding="utf-8")
