"""Finished runs of studies, a JSON file each, named by what was computed: no study runs them twice or loses them."""

import json
from typing import Any

import pyarrow.fs

from llm4seg.cluster.storage import file_system, retrying
from llm4seg.config import Config


class RunStore:
    """In `cluster.storage`, or in `paths.study_runs`. Can be pickled: nodes put their runs there themselves."""

    def __init__(self, config: Config) -> None:
        storage = config.cluster.storage
        self._address = storage or str(config.paths.study_runs)
        self._sub = "study/" if storage else ""
        self._patience = config.cluster.storage_patience

    def read(self, name: str) -> dict[str, Any] | None:
        """What a run left; None where there is none."""
        files, path = self._at(name)
        if retrying(self._patience)(files.get_file_info, path).type == pyarrow.fs.FileType.NotFound:
            return None
        with retrying(self._patience)(files.open_input_stream, path) as stream:
            record: dict[str, Any] = json.loads(stream.read())
        return record

    def put(self, name: str, record: dict[str, Any]) -> None:
        """Keep what a run left, whole or not at all."""
        retrying(self._patience)(self._write, name, json.dumps(record, allow_nan=False).encode())

    def _write(self, name: str, content: bytes) -> None:
        files, path = self._at(name)
        files.create_dir(path.rpartition("/")[0], recursive=True)
        with files.open_output_stream(f"{path}.partial") as stream:
            stream.write(content)
        files.move(f"{path}.partial", path)

    def _at(self, name: str) -> tuple[pyarrow.fs.FileSystem, str]:
        files, path = file_system(self._address)
        return files, f"{path}/{self._sub}{name}.json"
