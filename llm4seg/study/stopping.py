"""The order of a study's runs with looks: those up to a look, then, unless it stops the study, those up to the next."""

from collections.abc import Iterator, Sequence

from llm4seg.config import Config
from llm4seg.study.looks import looks
from llm4seg.study.results import reached
from llm4seg.study.runner import NamedRun, jobs, records


def due(config: Config, runs: Sequence[NamedRun]) -> Iterator[Sequence[NamedRun]]:
    """The runs up to each look in turn, until one stops the study; without looks all runs at once.

    To be run before the next are asked for: whether there are any depends on their records.
    """
    if not (ends := looks(config.study)):
        yield runs
    for look in ends:
        yield [run for run in runs if run.planned.repeat < look.repeats]
        found = reached(config, records(config, runs))
        if found is not None and found.stops:
            return


def any_due(config: Config, runs: Sequence[NamedRun]) -> bool:
    """Whether the study goes on: whether runs are missing or failed that no look has made needless."""
    return any(jobs(config, part) for part in due(config, runs))
