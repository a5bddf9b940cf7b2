"""`Config`: all sections of params.yaml, read, validated, and changed by validated copy."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from llm4seg.config.earlier import PRESETS
from llm4seg.config.llms import choices, layers_of, searched
from llm4seg.config.overrides import apply, explain, find
from llm4seg.config.params_file import read
from llm4seg.config.schema import DEFAULT_LLM, PRESET, SECTIONS_ALONE, Overrides, Presets, Sections
from llm4seg.utils.errors import InputError

INIT = "training.init_from"
LASTING = ("cache", "runs", "study_runs", "tracking")  # paths of no stage's outputs: what a later run goes on with
HOME = "LLM4SEG_HOME"  # environment variable: the folder that these are relative to
IN_ARMS = ("model", "optimizer", "training", "engine")  # an arm of a study is another training, on the same data
# what a trial cannot vary: it lasts search.epochs and validates each, its score is the best epoch's, best.json holds no
# paths
UNSEARCHED = ("training.epochs", "training.select", "training.patience", "training.validate_every", INIT)
# environment variable: a job's overrides of the `cluster` section, dotted, as JSON. Not in its params.yaml, where
# `dvc exp run` would count them as part of the experiment
JOB_SETTINGS = "LLM4SEG_CLUSTER"


class Config(Sections):
    """All sections of params.yaml, validated. `Config.load(path)` reads the file, `override` returns a validated copy.

    Raises InputError naming the dotted parameter, what was found and what is allowed.
    """

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read params.yaml. Relative paths are resolved against its folder, since Ray's workers change directory."""
        config = cls.parse(read(path), str(path)).override(_job_settings()).resolved(path.absolute().parent)
        config._check_named_overrides()
        return config

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "params", context: str | None = None) -> Self:
        """Validate plain values, as read from YAML or sent to a worker."""
        try:
            return cls.model_validate(values, context=context)
        except ValidationError as error:
            raise InputError("\n".join(explain(where, mistake) for mistake in error.errors())) from None

    def plain(self) -> dict[str, Any]:
        """JSON values, from which `parse` makes an equal config: the form that is sent to other processes."""
        return self.model_dump(mode="json")

    def override(self, changes: Mapping[str, Any], context: str | None = None, where: str = "override") -> Self:
        """A validated copy with dotted parameters changed: `override({"optimizer.lr": 3e-4})`."""
        values = self.plain()
        apply(changes, values)
        return self.parse(values, where, context)

    def preset(self, name: str) -> Self:
        """A validated copy with the overrides of one of `presets` applied."""
        return self.override(self.preset_changes(name))

    def preset_changes(self, name: str) -> Overrides:
        """The overrides of one of `presets`."""
        return preset_changes(self.presets, name)

    def arm(self, name: str) -> Self:
        """A validated copy with the overrides of one of `study.arms` applied."""
        return self.override(self._arm_changes(name))

    def _arm_changes(self, name: str) -> Overrides:
        changes = dict(self.study.known[name])
        preset = changes.pop(PRESET, None)
        if preset is not None and preset not in [*self.presets]:
            raise InputError(f"study.arms.{name}.preset: found {preset!r}, allowed: {', '.join(self.presets)}")
        changes = {**(self.presets[preset] if preset else {}), **changes}
        if outside := [dotted for dotted in changes if dotted.split(".")[0] not in IN_ARMS]:
            raise InputError(f"study.arms.{name}: found {outside[0]}, allowed: parameters of {', '.join(IN_ARMS)}")
        return changes

    def resolved(self, root: Path) -> Self:
        """A copy with absolute paths, resolved against `root`; those of LASTING against `home(root)`."""
        roots = {name: home(root) if name in LASTING else root for name, _ in self.paths}
        changes: Overrides = {f"paths.{name}": os.path.normpath(roots[name] / path) for name, path in self.paths}
        changes["data.root"] = os.path.normpath(root / self.data.root)
        changes[INIT] = _absolute(root, self.training.init_from)
        if self.evaluation.models is not None:
            changes["evaluation.models"] = [os.path.normpath(root / folder) for folder in self.evaluation.models]
        changes["study.other_data"] = _absolute(root, self.study.other_data)
        changes["study.arms"] = {
            name: arm | {INIT: _absolute(root, arm[INIT])} if isinstance(arm.get(INIT), str) else arm
            for name, arm in self.study.arms.items()
        }
        changes["llm.source"] = _located(root, self.llm.source)
        changes["llm.sources"] = {
            name: one.model_dump(mode="json") | {"source": _located(root, one.source)}
            for name, one in self.llm.sources.items()
        }
        return self.override(changes)

    def digest(self, *sections: str, extra: str = "") -> str:
        """The sha256 of some sections' values and `extra`, 12 hex digits of it: equal digest, equal computation."""
        values = self.plain()
        if self.model.llm.source == DEFAULT_LLM:
            del values["model"]["llm"]["source"]  # so names of runs stay as they were when there was one LLM
        text = json.dumps([{name: values[name] for name in sections}, extra], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def layers_needed(self) -> dict[str, list[int]]:
        """The layers that the stores must hold, ascending, by the LLM's name in `llm.named`."""
        needed = self.layers_used()
        for name, one in self.llm.named.items():
            if one.layers:
                needed[name] = sorted({*needed.get(name, ()), *one.layers})
        return needed

    def layers_used(self) -> dict[str, list[int]]:
        """The layers of the model, of the search space and of the study's arms, ascending, by the LLM's name.

        An LLM whose width alone is used, by an MLP of its size, has none. An arm begins with what the search found.
        Stage `fetch_llm` does not read model.bottleneck: the model is taken for one with layers.
        """
        trainings: list[Overrides] = [{}]
        if self.search.trials:
            trainings += searched(self.search.space, self.model.llm)
        if self.study.repeats:
            arms = [choices(self._arm_changes(name)) for name in self.study.chosen]
            trainings += [found | arm for arm in arms for found in trainings]
        return layers_of(self.model.llm, trainings)

    def _check_named_overrides(self) -> None:
        for name, changes in self.presets.items():
            self.override(changes, SECTIONS_ALONE, f"presets.{name}")  # the others may be meant for another preset
        for name in self.study.arms:
            context = None if self.study.repeats and name in self.study.chosen else SECTIONS_ALONE
            self.override(self._arm_changes(name), context, f"study.arms.{name}")
        self._check_space()

    def _check_space(self) -> None:
        """Raise InputError unless each value of the search space makes a different training on the same data."""
        for dotted in self.search.space:
            find(self.plain(), dotted)
            if dotted in UNSEARCHED or not dotted.startswith(tuple(f"{section}." for section in IN_ARMS)):
                raise InputError(
                    f"search.space: found {dotted}, allowed: parameters of {', '.join(IN_ARMS)}, but for "
                    f"{', '.join(UNSEARCHED)}: a trial trains on the data as they are, for search.epochs"
                )
            earlier: list[Config] = []
            for value, config in self._extremes(dotted):
                if config in earlier:
                    raise InputError(f"search.space.{dotted}: found {value!r} twice, allowed: each value once")
                earlier.append(config)

    def corners(self) -> Iterator[Self]:
        """For each parameter of the search space, copies with the values that stand for all of its values."""
        return (config for dotted in self.search.space for _, config in self._extremes(dotted))

    def _extremes(self, dotted: str) -> Iterator[tuple[Any, Self]]:
        distribution = self.search.space[dotted]
        conditions = {parent: allowed[0] for parent, allowed in distribution.when.items()}
        for value in distribution.extremes:
            yield value, self.override(conditions | {dotted: value})


def preset_changes(presets: Mapping[str, Overrides], *names: str) -> Overrides:
    """The overrides of some presets together: each parameter once, the later preset's value. InputError for others."""
    changes: Overrides = {}
    for name in names:
        if (current := PRESETS.get(name, name)) not in presets:
            raise InputError(f"presets: found {name!r}, allowed: {', '.join(presets)}")
        changes |= presets[current]
    return changes


def presets_in(values: Mapping[str, Any], where: str) -> dict[str, Overrides]:
    """The presets among the values of a params.yaml, whose other values may be refused."""
    try:
        presets: dict[str, Overrides] = TypeAdapter(Presets).validate_python(values.get("presets"))
    except ValidationError as error:
        raise InputError("\n".join(explain(f"{where}: presets", mistake) for mistake in error.errors())) from None
    return presets


def _job_settings() -> Overrides:
    changes: Overrides = json.loads(os.environ.get(JOB_SETTINGS, "{}"))
    assert all(dotted.startswith("cluster.") for dotted in changes), "a job says where it runs, never what it computes"
    return changes


def home(root: Path) -> Path:
    """The folder of what outlasts a run: LLM4SEG_HOME, else the main workspace, else `root`.

    `dvc exp run --temp` and `--queue` work in .dvc/tmp/exps/..., which DVC deletes with all that is no output.
    """
    if named := os.environ.get(HOME):
        return Path(named).expanduser().absolute()
    return next((folder.parents[2] for folder in root.parents if folder.parts[-3:] == (".dvc", "tmp", "exps")), root)


def _located(root: Path, source: str) -> str:
    """The source of an LLM: an address as it is, a path made absolute."""
    return source if "://" in source else os.path.normpath(root / source)


def _absolute(root: Path, path: Path | str | None) -> str | None:
    return None if path is None else os.path.normpath(root / path)
