"""Errors that end a command with one line and no traceback: `UserError` and its kinds, and `StopRequested`."""

import re

S3_CREDENTIALS = "credentials come from the environment, ~/.aws or the machine's role; AWS_PROFILE chooses among them"


class UserError(ValueError):
    """An error that a user can fix. The message has what is wrong and what to do."""


class InputError(UserError):
    """A bad parameter, file or machine. The message names it, what was found and what is allowed."""


class Diverged(UserError):
    """The training diverged: its loss, gradients or weights are not finite."""

    def __init__(self, what: str) -> None:
        """`what`: what is not finite, and where."""
        super().__init__(f"{what}; the last checkpoint is kept; lower optimizer.lr, or set optimizer.clip_norm")


class StopRequested(Exception):
    """A run has saved a checkpoint and stopped, on request."""


def without_secrets(text: str) -> str:
    """A message without secrets of addresses: user and password, and a query, which may be a signature."""
    return re.sub(r"(\w+://)[^/\s@'\"]*@", r"\1", re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1", text))
