"""Launcher of a training, chosen by `cluster.launcher`: this process, or Ray."""

from collections.abc import Callable
from contextlib import closing

from llm4seg.cluster.local_ray import LAUNCHER
from llm4seg.cluster.progress import EpochPrinter
from llm4seg.cluster.runs import Outcome, completed_epochs
from llm4seg.cluster.stop_signal import LocalStopSignal, stop_on_sigterm
from llm4seg.config import Config
from llm4seg.tracking.tracker import check_installed
from llm4seg.tracking.watch import watched
from llm4seg.training.run import Event
from llm4seg.utils.extras import require


def train(config: Config, name: str) -> Outcome:
    """Train the run of this name, printing each epoch; goes on from its last checkpoint when it was interrupted.

    On SIGTERM, the workers save a checkpoint and stop; raises StopRequested.
    A live history and the tracker of `tracking.to` are told of each epoch.
    """
    check_installed(config)
    if config.cluster.launcher == "ray":
        require("ray", LAUNCHER)
    printer = EpochPrinter(config.training.epochs)
    with closing(printer), watched(config, name, completed_epochs(config, name)) as watch:

        def handle(event: Event) -> None:
            printer(event)
            watch(event)

        return _launch(config, name, handle, printer.draws_steps)


def _launch(config: Config, name: str, handle: Callable[[Event], None], steps: bool) -> Outcome:
    if config.cluster.launcher == "process":
        from llm4seg.cluster.process_run import train_in_process

        local = LocalStopSignal()
        with stop_on_sigterm(local):
            return train_in_process(config, name, handle, local)

    from llm4seg.cluster.launch import train_on_ray
    from llm4seg.cluster.ray_events import ray_events
    from llm4seg.cluster.ray_stop_signal import RayStopSignal
    from llm4seg.cluster.session import ray_session

    with ray_session(config.cluster):
        stop_signal = RayStopSignal()
        with stop_on_sigterm(stop_signal), ray_events(handle) as callback:
            queue = callback.queue if steps else None
            return train_on_ray(config, [callback], name, stop_signal=stop_signal, steps=queue)
