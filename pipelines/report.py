"""Stage `report`: one HTML page of what was run and how good it is."""

from llm4seg.config import Config
from llm4seg.utils.files import write_text
from pipelines.stage import run_stage


def report(config: Config) -> None:
    """Leave the page; it needs no other file and no network."""
    from llm4seg.report.inputs import read_inputs
    from llm4seg.report.page import render

    write_text(config.paths.report, render(read_inputs(config)))


if __name__ == "__main__":
    run_stage("report", __doc__ or "", report)
