"""Inputs of the report: the outputs of the stages before it, read and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm4seg.analysis import results as analysis_results
from llm4seg.analysis.results import AnalysisResult
from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, read_split
from llm4seg.evaluation.results import read_cases, read_overlays, read_volumes
from llm4seg.models.saved import read_metadata
from llm4seg.search import results as search_results
from llm4seg.search.results import SearchResult
from llm4seg.study import results as study_results
from llm4seg.study.results import StudyResult
from llm4seg.training.history import read_history
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json


@dataclass(frozen=True)
class Inputs:
    """The inputs of the page."""

    title: str
    settings: dict[str, dict[str, Any]]  # the config's sections that decide the result, with the search's overrides
    data: Prepared
    contact_sheet: bytes  # PNG
    split: Split
    model: dict[str, Any]  # model.json
    history: pd.DataFrame
    metrics: dict[str, Any]
    cases: pd.DataFrame  # cases.csv
    volumes: pd.DataFrame | None  # volumes.csv
    overlays: dict[str, bytes]  # PNGs by role: best, median, worst
    search: SearchResult | None
    study: StudyResult | None
    analysis: AnalysisResult | None


def read_inputs(config: Config) -> Inputs:
    """Read the outputs of the other stages. Raises InputError naming the file that is missing or broken."""
    paths = config.paths
    model, _ = read_metadata(paths.model)
    metrics = read_json(paths.metrics)
    return Inputs(
        title=config.report.title,
        settings=settings(config, model["config"]),
        data=Prepared(paths.prepared),
        contact_sheet=read_contact_sheet(paths.contact_sheet),
        split=read_split(paths.split),
        model=model,
        history=read_history(paths.history),
        metrics=metrics,
        cases=read_cases(paths.evaluation),
        volumes=read_volumes(paths.evaluation) if metrics.get("volumes") else None,
        overlays=read_overlays(paths.evaluation),
        search=search_results.read(paths.search),
        study=study_results.read(paths.study),
        # a project of before there was this stage has none
        analysis=analysis_results.read(paths.analysis) if paths.analysis.exists() else None,
    )


def read_contact_sheet(path: Path) -> bytes:
    """The contact sheet of `prepare` as PNG. Raises InputError when there is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; run the stage that makes it (`dvc repro prepare`)")
    return path.read_bytes()


def settings(config: Config, trained: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`data`, `split`, `evaluation` from params, the other sections from the trained model.

    Without `data.root` and the places of `evaluation.models`, which differ between machines, without what is of another
    grid than `data.grid` or of another intensity than `data.intensity`, and without the networks that were not chosen.
    """
    plain, resized = config.plain(), config.data.grid == "resize"
    hidden = ["root", "folder", "phantom", "spacing" if resized else "size"]
    if config.data.intensity != "window":
        hidden.append("window")
    data = without(plain["data"], *hidden)
    if resized:
        trained = trained | {"training": without(trained["training"], "patch")}
    unused = [section for name, section in Model.sections().items() if name != trained["model"]["backbone"]]
    trained = trained | {"model": without(trained["model"], *unused)}
    if (dataset := config.data.dataset) in ("folder", "phantom"):
        data[dataset] = plain["data"][dataset]
    evaluation = plain["evaluation"]
    if (models := config.evaluation.models) is not None:
        evaluation = evaluation | {"models": [folder.name for folder in models]}
    return {"data": data, "split": plain["split"], **trained, "evaluation": evaluation}


def without(section: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}
