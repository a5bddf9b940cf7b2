"""Stage `evaluate`: measure the trained model on the test part and draw its best, median and worst case."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm4seg.config import Config
from llm4seg.utils.files import replacing, write_json
from llm4seg.utils.logs import level_of
from pipelines.stage import run_stage

if TYPE_CHECKING:
    from torch import nn

    from llm4seg.inference.prepared import Member

log = logging.getLogger("llm4seg.pipelines.evaluate")


def evaluate(config: Config) -> None:
    """Evaluate the trained model, or ensemble; write cases.csv, volumes.csv, overlays and metrics."""
    from llm4seg.data.prepared import Prepared
    from llm4seg.inference.prepared import Member
    from llm4seg.models.check_data import check_ensemble
    from llm4seg.models.saved import as_trained, load_trained
    from llm4seg.runtime.device import default_device, device_that_fits
    from llm4seg.runtime.seeding import set_deterministic

    data, folders = Prepared(config.paths.prepared), config.evaluation.models or (config.paths.model,)
    check_ensemble(folders, data)
    wanted, members = default_device(config.cluster), []
    for folder in folders:
        model = load_trained(folder, config.paths.llm_used)
        device = device_that_fits(model, wanted)
        set_deterministic(device)
        members.append(Member(model.to(device), as_trained(folder, data)))
    first, *others = members
    write_evaluation(config, first.network, others)


def write_evaluation(config: Config, model: "nn.Module", others: "Sequence[Member]" = ()) -> None:
    """Evaluate any model on the test part, write the stage's outputs, and say why volumes have no scores, and which
    cases a model has seen. With `others`, it is the first of an ensemble.
    """
    from llm4seg.data.prepared import Prepared
    from llm4seg.data.split import read_split
    from llm4seg.evaluation import evaluate
    from llm4seg.evaluation.gains import remarks
    from llm4seg.evaluation.masks import check_turned
    from llm4seg.evaluation.results import OVERLAYS, write_cases
    from llm4seg.evaluation.volumes import not_whole
    from llm4seg.models.saved import as_trained, seen_cases, trained_augment

    folders = config.evaluation.models or (config.paths.model,)
    data, split = as_trained(folders[0], Prepared(config.paths.prepared)), read_split(config.paths.split)
    for folder in folders if config.evaluation.tta else ():
        check_turned(data, config.evaluation, trained_augment(folder))
    result = evaluate.evaluate(model, data, split, config.evaluation, others=others)
    if config.evaluation.models is not None:
        seen = {case_id for folder in folders for case_id in seen_cases(folder, data, split.test)}
        result.summary["models"] = {"count": len(folders), "seen": len(seen)}
    with replacing(config.paths.evaluation) as folder:
        evaluate.draw_examples(model, data, result.rows, config.evaluation, folder / OVERLAYS, others)
        write_cases(folder, result)
    write_json(config.paths.metrics, result.summary)
    if reason := not_whole(data, split.test):
        log.info(f"evaluate: no scores per volume: {reason}")
    for line in remarks(result.summary):
        log.log(level_of(line), f"evaluate: {line}")


if __name__ == "__main__":
    run_stage("evaluate", __doc__ or "", evaluate)
