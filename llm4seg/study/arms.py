"""Planned runs of a study, the most informative first."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llm4seg.config import Config
from llm4seg.data.prepared import Prepared
from llm4seg.data.rules import split_by_rule
from llm4seg.data.split import Split, write_split
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class PlannedRun:
    """One training of an arm. Runs of one repeat and fold are paired: equal seed, split, batches and initial CNN.

    `data`: the name of its data set of `study.data`; None: of the pipeline's own data.
    """

    arm: str
    repeat: int
    fold: int | None
    data: str | None = None

    def config(self, config: Config) -> Config:
        """The config of the run, from the study's config."""
        arm = config.arm(self.arm)
        changes = {"training.seed": arm.training.seed + self.repeat}
        split = {} if self.fold is None else {"paths.split": str(_split_path(config, self.fold))}
        return arm.override(changes | split)


def planned_runs(config: Config) -> list[PlannedRun]:
    """The planned runs in order: all arms of a repeat and fold, references first, then the next repeat and fold.

    Repeats and folds up to a look come before all others.
    """
    section = config.study
    first = section.chosen_references
    arms = [*first, *(name for name in section.chosen if name not in first)]
    ends = section.look_repeats or (section.repeats,)
    starts = (0, *ends)
    blocks = [block for span in zip(starts, ends, strict=False) for block in _blocks(range(*span), section.folds)]
    return [PlannedRun(arm, repeat, fold) for repeat, fold in blocks for arm in arms]


def _blocks(repeats: range, folds: tuple[int, ...]) -> Iterator[tuple[int, int | None]]:
    """Every pair of repeat and fold once; early pairs share neither, since new seeds and new cases inform the most."""
    if not folds:
        yield from ((repeat, None) for repeat in repeats)
        return
    for offset in range(len(folds)):
        yield from ((repeat, folds[(repeat + offset) % len(folds)]) for repeat in repeats)


def write_splits(config: Config) -> None:
    """Write the split of each fold beside the finished runs."""
    if config.study.repeats and config.study.folds:
        for fold, split in fold_splits(config, Prepared(config.paths.prepared)).items():
            write_split(_split_path(config, fold), split)


def fold_splits(config: Config, data: Prepared) -> dict[int, Split]:
    """The split of each of `study.folds`.

    Raises InputError where a case is tested in two of them: the statistics take folds for those of different cases.
    """
    folds = config.study.folds
    splits = {fold: split_by_rule(data, config.split.model_copy(update={"fold": fold})) for fold in folds}
    tested = [name for split in splits.values() for name in split.test]
    if shared := len(tested) - len(set(tested)):
        raise InputError(
            f"study.folds: found {[*folds]}, whose test parts share {shared} cases; allowed: folds that test different "
            "cases, or [] and split.fold"
        )
    return splits


def _split_path(config: Config, fold: int) -> Path:
    data = Prepared(config.paths.prepared)  # each of several data sets has its own splits
    name = config.digest("split", extra=data.sha256)
    return config.paths.study_runs / f"split-{name}-{fold}.json"
