"""Store of finished runs of studies: a JSON file per run, named by its computation, so that no study repeats it."""

import json
from typing import Any

import pyarrow.fs

from llm4seg.cluster.storage import file_system, retrying
from llm4seg.config import Config


class RunStore:
    """The store in `cluster.storage`, or else in `paths.study_runs`. Picklable: nodes write their own runs to it."""

    def __init__(self, config: Config) -> None:
        storage = config.cluster.storage
        self._address = storage or str(config.paths.study_runs)
        self._prefix = "study/" if storage else ""
        self._timeout = config.cluster.storage_patience

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a run; None where there is none."""
        files, path = self._at(name)
        if retrying(self._timeout)(files.get_file_info, path).type == pyarrow.fs.FileType.NotFound:
            return None
        with retrying(self._timeout)(files.open_input_stream, path) as stream:
            record: dict[str, Any] = json.loads(stream.read())
        return record

    def put(self, name: str, record: dict[str, Any]) -> None:
        """Write the record of a run, whole or not at all."""
        retrying(self._timeout)(self._write, name, json.dumps(record, allow_nan=False).encode())

    def _write(self, name: str, content: bytes) -> None:
        files, path = self._at(name)
        files.create_dir(path.rpartition("/")[0], recursive=True)
        with files.open_output_stream(f"{path}.partial") as stream:
            stream.write(content)
        files.move(f"{path}.partial", path)

    def _at(self, name: str) -> tuple[pyarrow.fs.FileSystem, str]:
        files, path = file_system(self._address)
        return files, f"{path}/{self._prefix}{name}.json"
