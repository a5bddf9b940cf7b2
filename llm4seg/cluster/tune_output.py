"""A replacement for Tune's callback that prints the last result of every trial; the progress callbacks print less."""

from typing import Any

from ray.tune.progress_reporter import TrialProgressCallback


class NoTrialLines(TrialProgressCallback):
    """Prints nothing. Tune adds its own callback of this class unless another one is passed."""

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        pass

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        pass

    def on_trial_error(self, *_: Any, **__: Any) -> None:
        pass
