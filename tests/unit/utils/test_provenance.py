"""What a result is said to come from."""

from pathlib import Path

import pytest

from llm4seg.utils import provenance
from llm4seg.utils.provenance import AFTERWARDS, PACKAGE, code_digest


def test_a_run_is_gone_on_with_by_the_same_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    digest = code_digest.__wrapped__
    for name in ("train.py", "data/augment.py", "report/html.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    before = digest()
    (tmp_path / "report/html.py").write_text("after")
    assert digest() == before
    (tmp_path / "data/augment.py").write_text("after")
    assert (changed := digest()) != before
    monkeypatch.setattr(provenance, "versions", lambda: {"torch": "0"})
    assert digest() != changed


def test_what_computes_no_training_is_where_it_is_said_to_be() -> None:
    assert all((PACKAGE / name).exists() for name in AFTERWARDS)
