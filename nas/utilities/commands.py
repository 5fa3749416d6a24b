"""The commands that are printed for a user to type."""

import shlex
import shutil
import sysconfig
from pathlib import Path


def program() -> str:
    """What stands before a command: `nas`, or `python -m nas` where a shell does not find ours."""
    found = shutil.which("nas")
    ours = Path(sysconfig.get_path("scripts")) / "nas"
    return "nas" if found is not None and Path(found) == ours else "python -m nas"


def typed(*words: str | Path) -> str:
    """A command as it is typed, quoted for a shell: `nas plot 'results/my run'`."""
    return f"{program()} {shlex.join(map(str, words))}"
