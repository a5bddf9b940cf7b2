"""Store of finished runs of studies: a JSON file per run, named by its computation, so that no study repeats it; and
the models of those that `study.keep` keeps.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.fs

from llm4seg.cluster.storage import CHUNK, file_system, retrying
from llm4seg.config import Config
from llm4seg.models.saved import DESCRIPTION, WEIGHTS

MODEL = (WEIGHTS, DESCRIPTION)  # the last one's being there says that all are


class RunStore:
    """The store in `cluster.storage`, or else in `paths.study_runs`. Picklable: nodes write their own runs to it."""

    def __init__(self, config: Config) -> None:
        storage = config.cluster.storage
        self._address = storage or str(config.paths.study_runs)
        self._prefix = "study/" if storage else ""
        self._timeout = config.cluster.storage_patience

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a run; None where there is none."""
        if not self._exists(f"{name}.json"):
            return None
        files, path = self._at(f"{name}.json")
        with retrying(self._timeout)(files.open_input_stream, path) as stream:
            record: dict[str, Any] = json.loads(stream.read())
        return record

    def put(self, name: str, record: dict[str, Any]) -> None:
        """Write the record of a run, whole or not at all."""
        retrying(self._timeout)(self._write, f"{name}.json", json.dumps(record, allow_nan=False).encode())

    def has_model(self, name: str) -> bool:
        """Whether the run's model is here, whole."""
        return self._exists(f"{name}/{MODEL[-1]}")

    def put_model(self, name: str, folder: Path) -> None:
        """Copy a model's folder, as `train` leaves it; it counts as here once all of it is."""
        for file in MODEL:
            retrying(self._timeout)(self._write, f"{name}/{file}", folder / file)

    def get_model(self, name: str, folder: Path) -> None:
        """Copy a run's model to a new folder."""
        folder.mkdir(parents=True)
        for file in MODEL:
            retrying(self._timeout)(self._copy, f"{name}/{file}", folder / file)

    def _exists(self, name: str) -> bool:
        files, path = self._at(name)
        return bool(retrying(self._timeout)(files.get_file_info, path).type != pyarrow.fs.FileType.NotFound)

    def _write(self, name: str, content: bytes | Path) -> None:
        files, path = self._at(name)
        files.create_dir(path.rpartition("/")[0], recursive=True)
        with files.open_output_stream(f"{path}.partial") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                with content.open("rb") as file:
                    shutil.copyfileobj(file, stream, CHUNK)
        files.move(f"{path}.partial", path)

    def _copy(self, name: str, target: Path) -> None:
        files, path = self._at(name)
        with files.open_input_stream(path) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK)

    def _at(self, name: str) -> tuple[pyarrow.fs.FileSystem, str]:
        files, path = file_system(self._address)
        return files, f"{path}/{self._prefix}{name}"
