import sysconfig
from pathlib import Path

import pytest

from nas.utilities.commands import program, typed


def script(folder: Path) -> Path:
    """A folder with something to execute that is called `nas`."""
    folder.mkdir()
    (folder / "nas").write_text("#!/bin/sh\n")
    (folder / "nas").chmod(0o755)
    return folder


def test_commands_are_told_as_nas_where_a_shell_finds_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = script(tmp_path / "ours"), script(tmp_path / "other")
    monkeypatch.setattr(sysconfig, "get_path", lambda scheme: str(ours))
    for path, told in (
        (f"{ours}:{other}", "nas"),
        (f"{other}:{ours}", "python -m nas"),
        (str(tmp_path), "python -m nas"),
    ):
        monkeypatch.setenv("PATH", path)
        assert program() == told
        assert typed("plot", Path("results/my run")) == f"{told} plot 'results/my run'"
