"""The one error that a user causes and a user can mend."""


class InputError(ValueError):
    """Bad input: a flag, a file, a folder or a field.

    The message is one line that names what was wrong and what would be right. The command line
    prints it and exits with status 2; a library caller sees an ordinary `ValueError`.
    """
