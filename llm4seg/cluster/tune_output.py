"""A stand-in for the callback by which Tune prints the last result of every trial: our lines say more in less."""

from typing import Any

from ray.tune.progress_reporter import TrialProgressCallback


class NoTrialLines(TrialProgressCallback):
    """Prints nothing. Tune adds its own callback of this kind unless it is given one."""

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        pass

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        pass

    def on_trial_error(self, *_: Any, **__: Any) -> None:
        pass
