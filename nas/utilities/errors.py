"""What ends a command with one line instead of a traceback."""


class InputError(ValueError):
    """Bad input: a flag, a file, a folder or a field.

    The message is one line that names what was wrong and what would be right. Fields stand in it
    between backticks, by the names that they have in Python: the command line, which prints the
    message and exits with status 2, turns them into its flags. A library caller sees an ordinary
    `ValueError`.
    """


class Diverged(InputError):
    """A network whose numbers are no longer finite: its loss in training, or its class scores."""


class Disagreement(RuntimeError):
    """Costs that are not what was counted of the built network; the message is one line."""


class NothingFound(RuntimeError):
    """A search that ended without one evaluated architecture; the message is one line."""
