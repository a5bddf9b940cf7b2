"""What ends a command with one line and no traceback: a user's mistake, or a wish that a run should leave."""


class InputError(ValueError):
    """A bad parameter, file or machine. The message names it, what was found and what is allowed."""


class Left(Exception):
    """A run has saved a checkpoint and left, as it was asked to."""
