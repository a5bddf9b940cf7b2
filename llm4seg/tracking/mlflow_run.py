"""Tracker MLflow: a run on the server of MLFLOW_TRACKING_URI, or in a folder below `paths.tracking`."""

import os
import re
from pathlib import Path

from llm4seg.config import Config
from llm4seg.tracking.tracker import metrics, parameters
from llm4seg.training.run import Row

EXPERIMENT = "llm4seg"
LONGEST = 500  # characters of a parameter's value that every MLflow store takes


class MLflowRun:
    """A run of the experiment `llm4seg`, or of that of MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, config: Config, name: str, resume: str | None) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # MLflow asks for this where files are the store; its SQLite store needs the whole of MLflow
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (config.paths.tracking / "mlflow").as_uri()
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        self.run_id = resume or self._create(config, name)

    def _create(self, config: Config, name: str) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else self._client.create_experiment(experiment)
        run_id: str = self._client.create_run(experiment_id, run_name=name).info.run_id
        for dotted, value in parameters(config).items():
            self._client.log_param(run_id, dotted, str(value)[:LONGEST])
        return run_id

    def row(self, row: Row) -> None:
        for name, value in metrics(row).items():
            self._client.log_metric(self.run_id, allowed_name(name), value, step=int(row["epoch"]))

    def picture(self, epoch: int, place: int, path: Path) -> None:
        self._client.log_artifact(self.run_id, str(path), "pictures")

    def close(self, finished: bool) -> None:
        if finished:
            self._client.set_terminated(self.run_id)


def allowed_name(name: str) -> str:
    """A metric's name with what MLflow refuses in one (all but letters, digits and `_-. /`) replaced by `_`."""
    return re.sub(r"[^\w\-. /]", "_", name)


def mlflow_run(config: Config, name: str, resume: str | None) -> tuple[MLflowRun, str]:
    """A new run, or the one with the id `resume`."""
    run = MLflowRun(config, name, resume)
    return run, run.run_id
