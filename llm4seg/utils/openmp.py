"""How OpenMP's threads, in which torch computes on the CPU, wait for each other.

By default a thread that waits keeps asking, at full load, whether the others are done. Beside other programs it then
takes the core that the last of its own threads needs: steps of a training took several times as long. Threads that
sleep at once lose a third on a machine that does nothing else, as a step has hundreds of short waits. So they ask for a
short while, then sleep (docs/notes/benchmarks.md). That changes no result; the number of threads, which decides the
order of sums, would.
"""

import logging
import os
from collections.abc import Mapping

log = logging.getLogger(__name__)

SPINS = "3000"  # times that a thread asks before it sleeps: some 10 microseconds
# each decides it: OpenMP's own, GNU's, Intel's and LLVM's
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_policy(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables of how threads wait: the user's own if any, else few SPINS."""
    chosen = {name: environment[name] for name in VARIABLES if name in environment}
    return chosen or {"GOMP_SPINCOUNT": SPINS}


def let_threads_sleep() -> None:
    """Set `wait_policy` for this process and all that it starts. To be called before torch is imported."""
    policy = wait_policy()
    os.environ |= policy
    log.debug("threads of OpenMP wait by %s", policy)
