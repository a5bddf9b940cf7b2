"""`UserError`, `InputError` and `StopRequested`: what ends a command with one line and no traceback."""


class UserError(ValueError):
    """What a user can do something about. The message says what is wrong and what to do."""


class InputError(UserError):
    """A bad parameter, file or machine. The message names it, what was found and what is allowed."""


class StopRequested(Exception):
    """A run has saved a checkpoint and stopped, as it was asked to."""
