"""Stage `analyze`: measure what the block does to the model's features; nothing with analysis.enabled: false."""

import logging

from llm4seg.config import Config
from pipelines.stage import run_stage

log = logging.getLogger("llm4seg.pipelines.analyze")


def analyze(config: Config) -> None:
    """Measure the model of paths.model; write analysis.json, its tables and examples, and print its verdicts."""
    from llm4seg.analysis.results import write

    if not config.analysis.enabled:
        log.info("analyze: off (analysis.enabled is false)")
        write(config.paths.analysis, None)
        return
    from llm4seg.analysis.analyze import Subject
    from llm4seg.analysis.analyze import analyze as measure
    from llm4seg.data.prepared import Prepared
    from llm4seg.data.split import read_split
    from llm4seg.models.check_data import check_data
    from llm4seg.models.saved import as_trained, load_trained, read_metadata
    from llm4seg.runtime.device import default_device, device_that_fits
    from llm4seg.runtime.seeding import set_deterministic

    folder, data = config.paths.model, Prepared(config.paths.prepared)
    check_data(folder, data)
    model = load_trained(folder, config.paths.llm_used)
    device = device_that_fits(model, default_device(config.cluster))
    set_deterministic(device)
    layers = tuple(read_metadata(folder)[1].llm.layer)
    subject = Subject(model.to(device), as_trained(folder, data), layers, config.split.block)
    result = measure(subject, read_split(config.paths.split), config.analysis, config.evaluation)
    write(config.paths.analysis, result)
    for line in [*result.summary["verdicts"], *result.summary["cautions"]]:
        log.info(f"analyze: {line}")
    for name, reason in result.summary["no_probe"].items():
        log.warning(f"analyze: no probe of {name}: {reason}")


if __name__ == "__main__":
    run_stage("analyze", __doc__ or "", analyze)
