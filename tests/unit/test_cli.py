"""The command `llm4seg`: its subcommands, their help, and how little it imports before one is called."""

import subprocess
import sys

import pytest

from llm4seg import cli
from tests.import_graph import ROOT

HEAVY = ("torch", "numpy", "ray", "pandas", "pydantic", "yaml", "transformers", "monai", "dvc")
SECONDS = 0.3


def loaded(script: str) -> set[str]:
    """The heavy packages in sys.modules at the end of a script in a process of its own."""
    shown = f"{script}\nimport sys; print('loaded:', *set({HEAVY}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("script", ["import llm4seg", "from llm4seg import cli\ncli.main(['--version'])\ncli.main([])"])
def test_nothing_heavy_is_imported(script: str) -> None:
    assert loaded(script) == set()
    assert loaded("import llm4seg.config") == {"pydantic", "yaml"}  # the look at sys.modules sees what is there


@pytest.mark.parametrize("statement", ["import llm4seg", "from llm4seg import cli; cli.main(['--help'])"])
def test_the_import_and_help_take_little_time(statement: str) -> None:
    """CPU time, which others on this machine do not lengthen much; the least of some, without Python's own start."""
    script = f"import time\nstart = time.process_time()\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n"
    script += "print('seconds:', time.process_time() - start)"
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout.rpartition("seconds:")[2]))
    assert min(seconds) < SECONDS


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: llm4seg {name} ")
    assert f"llm4seg {name}" in shown.partition("example: ")[2]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["predictt"])
    assert end.value.code == 2
    assert "invalid choice: 'predictt'" in capsys.readouterr().err


def test_a_package_of_an_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose module cannot be imported without an extra; another missing module is a bug and stays one."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "llm4seg.search.searcher", raising=False)
    monkeypatch.setitem(cli.COMMANDS, "tune", ("llm4seg.search.searcher", ""))
    with pytest.raises(SystemExit, match=r"^tune: this needs optuna, .*: pip install 'llm4seg\[cluster\]'$"):
        cli.main(["tune"])
    monkeypatch.setitem(cli.COMMANDS, "tune", ("llm4seg.no_such_module", ""))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["tune"])
