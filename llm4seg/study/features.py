"""`study.analyze`: the features of each run are measured before its model is let go."""

from typing import Any

from llm4seg.analysis.analyze import analyze
from llm4seg.analysis.measures import Row
from llm4seg.analysis.places import AFTER, BEFORE
from llm4seg.analysis.subject import Subject
from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split
from llm4seg.models import Hybrid
from llm4seg.study.feature_comparisons import CLASSES, DATASET, TOKENS
from llm4seg.study.feature_similarity import COORDINATES, coordinates
from llm4seg.utils.provenance import code_digest


def measure_features(config: Config, model: Hybrid, data: Prepared, split: Split) -> dict[str, list[Row]]:
    """The tables of the analysis of a run's model for its record, with the name of the data."""
    subject = Subject(model, data, tuple(config.model.llm.layer), config.split.block)
    result = analyze(subject, split, config.analysis, config.evaluation, title=None)
    fields = result.summary["receptive_field"]
    places = [
        {
            "place": place,
            **values,
            **{f"receptive_field_{share}": side for share, side in fields.get(place, {}).items()},
        }
        for place, values in result.summary["dataset"].items()
    ]
    tables = {
        CLASSES: result.classes.to_dict("records"),
        TOKENS: result.tokens.to_dict("records"),
        DATASET: places,
        COORDINATES: [{"coordinates": row} for row in coordinates(result.means.get(AFTER, result.means[BEFORE]))],
    }
    return {name: [{"data": data.name, **row} for row in rows] for name, rows in tables.items()}


def name_sources(config: Config) -> list[Any]:
    """What the name of a run is made of beside other things with study.analyze; nothing without it."""
    if not config.study.analyze:
        return []
    section = config.analysis.model_dump(mode="json", exclude={"enabled"})
    return [("analyze", section, config.evaluation.seed, config.split.block, code_digest("analysis"))]
