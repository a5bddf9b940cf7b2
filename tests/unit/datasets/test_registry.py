"""Every name that `data.dataset` takes has one reader."""

from typing import get_args

from llm4seg.config.schema import Data
from llm4seg.datasets.registry import PACKAGED, READERS, READERS_OF_CLASSES


def test_every_dataset_has_one_reader() -> None:
    names = [*READERS, *READERS_OF_CLASSES]
    assert sorted(names) == sorted(get_args(Data.model_fields["dataset"].annotation))
    assert {*PACKAGED} < {*READERS}
