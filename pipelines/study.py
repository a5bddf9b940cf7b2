"""Stage `study`: arms trained and tested alike under several seeds, and compared; with `study.repeats: 0`, nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json, replacing, write_json
from pipelines.stage import run_stage

if TYPE_CHECKING:
    import pandas as pd

    from llm4seg.study.results import Runs


def study(config: Config) -> None:
    """Run what has not finished yet, then leave what all runs say."""
    config = _as_found(config)
    if config.study.repeats == 0:
        print("study: off (study.repeats is 0)")
        leave(config, [])
        return
    from llm4seg.cluster.session import ray_session
    from llm4seg.study.results import finished
    from llm4seg.study.runner import records, run_missing

    if not all(finished(record) for _, record in records(config)):
        with ray_session(config.cluster):
            run_missing(config)
    leave(config, records(config))


def so_far(config: Config) -> None:
    """leave what the finished runs say, and run nothing"""
    from llm4seg.study.runner import records

    config = _as_found(config)
    leave(config, records(config))


def plan(config: Config) -> None:
    """print how many runs there are, how long they take and what they can find, and run none of them"""
    if config.study.repeats == 0:
        raise InputError("study.repeats: found 0, allowed for a plan: 1 or more")
    from llm4seg.study.plan import cost, power
    from llm4seg.study.runner import records

    config = _as_found(config)
    runs = records(config)
    for line in [*cost(config, runs), *power(config, runs)]:
        print(line, flush=True)


def leave(config: Config, runs: "Runs") -> None:
    """Write study.json, and the tables and pictures as far as there are runs."""
    from llm4seg.study.results import results

    said, tables = results(config, runs)
    with replacing(config.paths.study) as folder:
        folder.mkdir()
        write_json(folder / "study.json", said)
        for name, table in tables.items():
            if len(table):
                table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        if len(tables["comparisons"]):
            draw(said, tables, folder)
    for line in [*said["verdicts"], *said["cautions"], *said["failures"]]:
        print(f"study: {line}")
    if said["failed"]:
        print(
            "study: `python -m pipelines.study` tries failed runs again, `dvc repro -f -s study` does, `dvc repro` not"
        )


def draw(said: dict[str, Any], tables: "dict[str, pd.DataFrame]", folder: Path) -> None:
    """Write the forest plot, and each case under two arms."""
    from llm4seg.report.charts import as_file
    from llm4seg.report.study_charts import forest, paired

    compared, metric = tables["comparisons"], said["metric"]
    drawn = {
        "forest": forest(compared, metric, 1 - said["confidence"]),
        "paired": paired(tables["study"], compared, metric),
    }
    for name, svg in drawn.items():
        (folder / f"{name}.svg").write_text(as_file(svg), encoding="utf-8")


def _as_found(config: Config) -> Config:
    """With what the search has found, as `train` has it."""
    return config.override(read_json(config.paths.search / "best.json"))


if __name__ == "__main__":
    run_stage("study", __doc__ or "", study, instead={"plan": plan, "so-far": so_far})
