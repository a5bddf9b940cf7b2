"""`UserError`, `InputError` and `StopRequested`: errors that end a command with one line and no traceback."""

import re

S3_CREDENTIALS = "credentials come from the environment, ~/.aws or the machine's role; AWS_PROFILE chooses among them"


class UserError(ValueError):
    """An error that a user can fix. The message has what is wrong and what to do."""


class InputError(UserError):
    """A bad parameter, file or machine. The message names it, what was found and what is allowed."""


class StopRequested(Exception):
    """A run has saved a checkpoint and stopped, on request."""


def without_secrets(text: str) -> str:
    """A message without secrets of addresses: user and password, and a query, which may be a signature."""
    return re.sub(r"(\w+://)[^/\s@'\"]*@", r"\1", re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1", text))
