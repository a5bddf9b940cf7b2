"""How OpenMP's threads, in which torch computes on the CPU, wait for each other.

By default a thread that waits keeps asking, at full load, whether the others are done. Beside other programs it then
takes the core that the last of its own threads needs: steps of a training took several times as long as with threads
that sleep (docs/notes/benchmarks.md). The policy changes no result; the number of threads, which decides the order of
sums, would.
"""

import logging
import os
from collections.abc import Mapping

log = logging.getLogger(__name__)

# each decides it: OpenMP's own, GNU's, Intel's and LLVM's
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_policy(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables of how threads wait: the user's own if any, else sleeping."""
    chosen = {name: environment[name] for name in VARIABLES if name in environment}
    return chosen or {"OMP_WAIT_POLICY": "passive"}


def let_threads_sleep() -> None:
    """Set `wait_policy` for this process and all that it starts. To be called before torch is imported."""
    policy = wait_policy()
    os.environ |= policy
    log.debug("threads of OpenMP wait by %s", policy)
