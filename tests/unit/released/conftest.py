"""The layer store of the fixture of released weights, and a folder to convert in."""

from pathlib import Path

import pytest

from llm4seg.llm.store import LayerStore
from tests.converting import Workplace
from tests.official import official_state, official_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return official_store(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, store: LayerStore) -> Path:
    """The model folder of the fixture's network, to read only."""
    work = Workplace(tmp_path_factory.mktemp("converted"), store)
    work.convert(official_state())
    return work.model


@pytest.fixture
def work(tmp_path: Path, store: LayerStore) -> Workplace:
    return Workplace(tmp_path, store)
