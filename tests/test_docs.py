"""The code of the pages in docs/ runs as it stands."""

import os
import re
import warnings
from pathlib import Path

import pytest
from small_runs import Fork

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUOTE = re.compile(r"^```python from=(\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def code(page: Path) -> str:
    """A page's blocks of Python, in order; those marked `no-run` need what a test has not."""
    return "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))


def bare(text: str) -> str:
    """Its lines without indents and empty ones: a quotation has its own."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if code(p)], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        compile(code(page), page.name, "exec")
    done = Fork("-c", f"import os; os.chdir({os.fspath(tmp_path)!r})\n{code(page)}").finish()
    assert done.status == 0, done.err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_quotes_stands_in_the_code(page: Path) -> None:
    for file, quoted in QUOTE.findall(page.read_text(encoding="utf-8")):
        assert bare(quoted) in bare((ROOT / file).read_text(encoding="utf-8")), (file, quoted)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken
