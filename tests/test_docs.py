"""The pages in docs/ say what is so: their code runs, their commands exist, their links lead on."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from random import Random

import pytest
from small_runs import Fork

from nas.cli import _parser
from search_space import DESIGNS, PRESETS
from search_space.parts import FEED_FORWARDS, POOLINGS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_README = [*PAGES, ROOT / "README.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUOTE = re.compile(r"^```python from=(\S+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)\)")
COMMAND = re.compile(r"^ *(python run_search\.py|python -m nas|nas) ([^`\n]+)$", re.MULTILINE)


def code(page: Path) -> str:
    """A page's blocks of Python, in order; those marked `no-run` need what a test has not."""
    return "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))


def bare(text: str) -> str:
    """Its lines without indents and empty ones: a quotation has its own."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def marked(page: Path) -> object:
    """A page, whose code takes longer than it is worth each time if it trains much."""
    marks = [pytest.mark.exhaustive] if page.stem in ("extending", "pretrained") else []
    return pytest.param(page, marks=marks, id=page.stem)


@pytest.mark.slow
@pytest.mark.parametrize("page", [marked(page) for page in PAGES if code(page)])
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    for name, content in FILE.findall(page.read_text(encoding="utf-8")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        compile(code(page), page.name, "exec")
    done = Fork("-c", f"import os; os.chdir({os.fspath(tmp_path)!r})\n{code(page)}").finish()
    assert done.status == 0, done.err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_quotes_stands_in_the_code(page: Path) -> None:
    for file, quoted in QUOTE.findall(page.read_text(encoding="utf-8")):
        assert bare(quoted) in bare((ROOT / file).read_text(encoding="utf-8")), (file, quoted)


@pytest.mark.parametrize("page", WITH_README, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", WITH_README, ids=lambda page: page.stem)
def test_the_commands_of_a_page_have_the_flags_that_it_gives_them(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", "")
    for program, rest in COMMAND.findall(text):
        words = shlex.split(rest, comments=True)
        if program == "python run_search.py":
            words = ["search", *words]
        _parser().parse_args(words)


def test_every_page_stands_in_the_navigation() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(named(site["project"]["nav"])) == [page.name for page in PAGES]


def named(entries: list[dict]) -> list[str]:
    """The pages of a navigation, whose entries are a page or a list of entries, by title."""
    found = []
    for entry in entries:
        for value in entry.values():
            found += [value] if isinstance(value, str) else named(value)
    return found


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link_and_asks_nothing_of_the_network(
    tmp_path: Path,
) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.stem: path.read_text() for path in (tmp_path / "site").glob("*.html")}
    assert pages.keys() >= {page.stem for page in PAGES}
    fetched = re.compile(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//|<link[^>]*href="https?:')
    assert not [name for name, page in pages.items() if fetched.search(page)]


def test_every_word_of_a_summary_is_explained() -> None:
    page = (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
    explained = {without_numbers(word) for word in re.findall(r"`([^`\n]+)`", page)}
    networks = [design.architecture for design in DESIGNS]
    networks += [space.sample(Random(seed)) for space in PRESETS.values() for seed in range(20)]
    stages = [stage for network in networks for stage in network.stages]
    words = {word.text for stage in stages for word in stage.mixer.words(stage.sharing)}
    words |= {pooling.short for pooling in POOLINGS.values()}
    words |= {f"{kind.short} 4" for kind in FEED_FORWARDS.values()}
    assert not {without_numbers(word) for word in words} - explained


def without_numbers(word: str) -> str:
    """A word of a summary with N for every number in it."""
    return re.sub(r"\d+", "N", word)
