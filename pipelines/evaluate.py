"""Stage `evaluate`: measure the trained model on the test part and draw its best, median and worst case."""

from typing import TYPE_CHECKING

from llm4seg.config import Config
from llm4seg.utils.files import replacing, write_json
from pipelines.stage import run_stage

if TYPE_CHECKING:
    from torch import nn


def evaluate(config: Config) -> None:
    """Evaluate the trained model; write cases.csv, volumes.csv, overlays and metrics."""
    from llm4seg.data.prepared import Prepared
    from llm4seg.models.check_data import check_data
    from llm4seg.models.saved import load_trained
    from llm4seg.runtime.device import default_device, device_that_fits
    from llm4seg.runtime.seeding import set_deterministic

    check_data(config.paths.model, Prepared(config.paths.prepared))
    model = load_trained(config.paths.model, config.paths.llm_used)
    device = device_that_fits(model, default_device(config.cluster))
    set_deterministic(device)
    write_evaluation(config, model.to(device))


def write_evaluation(config: Config, model: "nn.Module") -> None:
    """Evaluate any model on the test part, write the stage's outputs, and say why volumes have no scores."""
    from llm4seg.data.prepared import Prepared
    from llm4seg.data.split import read_split
    from llm4seg.evaluation import evaluate
    from llm4seg.evaluation.results import OVERLAYS, write_cases
    from llm4seg.evaluation.volumes import not_whole
    from llm4seg.models.saved import as_trained

    data = as_trained(config.paths.model, Prepared(config.paths.prepared))
    split = read_split(config.paths.split)
    result = evaluate.evaluate(model, data, split, config.evaluation)
    with replacing(config.paths.evaluation) as folder:
        evaluate.draw_examples(model, data, result.rows, config.evaluation, folder / OVERLAYS)
        write_cases(folder, result)
    write_json(config.paths.metrics, result.summary)
    if reason := not_whole(data, split.test):
        print(f"evaluate: no scores per volume: {reason}", flush=True)


if __name__ == "__main__":
    run_stage("evaluate", __doc__ or "", evaluate)
