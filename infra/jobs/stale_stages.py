"""The stages that a job will find stale, by DVC's own reckoning in a checkout of what is about to be sent."""

import contextlib
import logging
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.jobs.bootstrap import unpack
from infra.jobs.errors import translate_dvc_errors
from infra.jobs.job_spec import EXPERIMENT, JobSpec
from llm4seg.config import Config
from llm4seg.utils.errors import InputError

TARGETS = ("targets", "recursive", "pipeline", "all_pipelines", "downstream", "single_item", "glob")
FORCED = ("force", "force_downstream")


def stale_stages(sent: Path, spec: JobSpec) -> list[str]:
    """Names of the stages that `dvc repro` or `dvc exp run` would run first, in their order.

    `sent`: the folder with what is sent. A stage whose inputs other stages make is stale only once they have changed
    them, which nobody knows before. Raises InputError for what DVC refuses: an option, a parameter of -S, a target; and
    for what a stage would refuse: a value of -S.
    """
    from dvc.repo import Repo

    with tempfile.TemporaryDirectory() as temporary, translate_dvc_errors(), _silent_dvc():
        options, overrides = _parse(spec.command)
        checkout = Path(temporary) / "checkout"
        unpack(sent / "snapshot.bundle", checkout, spec.head)
        _set_params(checkout, overrides)
        settings = {"core": {"site_cache_dir": f"{temporary}/site", "analytics": False}}
        # chdir: DVC takes targets, and its own dvc.yaml, for paths from the working directory
        with contextlib.chdir(checkout), Repo(config=settings) as repository:
            Config.load(Path("params.yaml"))  # with what -S says, which DVC takes for any value
            stages = repository.reproduce(repro_fn=_if_stale, run_cache=False, **options)
            return [str(stage.addressing) for stage in stages]


def _if_stale(stage: Any, upstream: list[Any], force: bool, **_: Any) -> Any:
    """In the place of running a stage: the stage, if DVC would run it. (Its own dry run wants the data to be here.)"""
    return stage if force or stage.changed(allow_missing=True, upstream=upstream) else None


@contextlib.contextmanager
def _silent_dvc() -> Iterator[None]:
    """Without DVC's line about each stage."""
    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _parse(command: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What a command asks of `Repo.reproduce`, and its overrides of parameters, as DVC's own parser reads it."""
    from dvc.cli import DvcParserError, parse_args

    try:
        found = vars(parse_args(command[1:]))
    except DvcParserError:
        raise InputError(f"`{shlex.join(command)}`: DVC does not take these words") from None
    overrides = (found.get("set_param") or []) if command[: len(EXPERIMENT)] == EXPERIMENT else []
    return {name: found[name] for name in (*TARGETS, *FORCED) if name in found}, overrides


def _set_params(checkout: Path, overrides: list[str]) -> None:
    """Write the parameters of -S into their files, as `dvc exp run` does."""
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides

    for file, of_this in to_path_overrides(overrides).items():
        apply_overrides(checkout / file, of_this)
