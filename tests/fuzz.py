"""Fuzzing: a check on new examples of a Hypothesis strategy for as long as an environment variable says."""

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

Example = TypeVar("Example")
MINUTES = "LLM4SEG_FUZZ_MINUTES"  # environment variable; a minute by default
AT_ONCE = 200  # examples between two looks at the clock
# examples are neither kept nor, which takes minutes, made smaller
OPTIONS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def check_for_minutes(check: Callable[[Example], None], examples: SearchStrategy[Example]) -> None:
    """Call `check` with other examples in every run until the time is over, and print how many there were."""
    end, tried = time.monotonic() + 60 * float(os.environ.get(MINUTES, "1")), 0

    def counted(example: Example) -> None:
        nonlocal tried
        tried += 1
        check(example)

    while time.monotonic() < end:
        seed(time.time_ns())(settings(**OPTIONS, max_examples=AT_ONCE)(given(examples)(counted)))()
    print(f"{tried} files")
