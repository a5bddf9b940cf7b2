"""The one exception that means: the user's input is at fault, not the program."""


class InputError(ValueError):
    """A bad parameter, file or machine. The message names it, what was found and what is allowed."""
