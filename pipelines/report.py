"""Stage `report`: one HTML page with the run's parameters, metrics and charts, and its charts as files."""

import logging

from llm4seg.config import Config
from llm4seg.utils.files import write_text
from pipelines.stage import near, run_stage

log = logging.getLogger("llm4seg.pipelines.report")


def report(config: Config) -> None:
    """Write the page, which needs no other file and no network, and the charts as SVG files."""
    from llm4seg.report.inputs import read_inputs
    from llm4seg.report.page import render
    from llm4seg.report.pictures import comparison_charts, training_charts, write_pictures

    inputs = read_inputs(config)
    charts = training_charts(inputs) | comparison_charts(inputs.search, inputs.study, inputs.analysis)
    write_pictures(config.paths.pictures, charts)
    page = render(inputs)
    write_text(config.paths.report, page)
    log.debug(
        "report: %d charts in %s; the page has %.1f kB", len(charts), near(config.paths.pictures), len(page) / 1e3
    )
    log.info(f"report: {near(config.paths.report)}")


def pictures(config: Config) -> None:
    """draw the pictures of search, study and analysis from what is there so far, and no page"""
    from llm4seg.analysis import results as analysis_results
    from llm4seg.report.pictures import comparison_charts, write_pictures
    from llm4seg.search import results as search_results
    from llm4seg.study import results as study_results

    search, study, analysis = config.paths.search, config.paths.study, config.paths.analysis
    charts = comparison_charts(
        search_results.read(search) if search.exists() else None,
        study_results.read(study) if study.exists() else None,
        analysis_results.read(analysis) if analysis.exists() else None,
    )
    write_pictures(config.paths.pictures, charts)


if __name__ == "__main__":
    run_stage("report", __doc__ or "", report, instead={"pictures": pictures})
