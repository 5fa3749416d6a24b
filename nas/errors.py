"""What ends a command with one line instead of a traceback."""


class InputError(ValueError):
    """Bad input: a flag, a file, a folder or a field.

    The message is one line that names what was wrong and what would be right. The command line
    prints it and exits with status 2; a library caller sees an ordinary `ValueError`.
    """


class NothingFound(RuntimeError):
    """A search that ended without one evaluated architecture; the message is one line."""
