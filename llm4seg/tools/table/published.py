"""Published scores of LLM4Seg, out of published.json, each with its source and its protocol."""

import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """A published mean in points (0 to 100), as many digits as were published.

    `data` is a data set's name here, or an average over several. `source` is where it was read, `second_hand` whether
    that was not the publication itself. `same_protocol` and `same_split` say whether ours are alike.
    """

    method: str
    data: str
    metric: str
    points: float
    source: str
    second_hand: bool
    protocol: str
    same_protocol: str
    same_split: str

    @property
    def digits(self) -> str:
        return f"{self.points:.1f}" if round(self.points, 1) == self.points else f"{self.points:.2f}"


def published(metric: str) -> list[Published]:
    """All published scores in a metric."""
    values = json.loads(FILE.read_text(encoding="utf-8"))
    protocol = values["protocol"]
    return [
        Published(
            **{name: number[name] for name in ("method", "data", "metric", "points")},
            source=values["sources"][number["source"]]["what"],
            second_hand=values["sources"][number["source"]]["second_hand"],
            protocol=protocol["what"],
            same_protocol=protocol["same_protocol"],
            same_split=protocol["same_split"],
        )
        for number in values["numbers"]
        if number["metric"] == metric
    ]
