"""Hostile command lines and damaged files; `benchmarks/fuzz.py` tries many more of the same."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from fuzzing import LONG, Case, build, command_lines, damaged_files, hurried, run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("template")
    with hurried(drawing=False):
        build(folder)
        yield folder


def problems(cases: Iterator[Case], template: Path, place: Path) -> tuple[Counter[int], list[str]]:
    """How many cases ended with which status, and what is wrong with which."""
    statuses: Counter[int] = Counter()
    wrong = []
    for case in cases:
        outcome = run(case, template, place)
        statuses[outcome.status] += 1
        if outcome.problem:
            wrong.append(f"{outcome.problem}: {case}: {outcome.err[-300:]}")
    return statuses, wrong


@pytest.mark.slow
def test_whatever_is_typed_ends_in_a_result_or_in_one_line(template: Path, tmp_path: Path) -> None:
    statuses, wrong = problems(islice(command_lines(0), 20), template, tmp_path)
    assert not wrong
    assert statuses[0] > 4 < statuses[2]  # neither is all refused, nor all taken


@pytest.mark.slow
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(
    template: Path, tmp_path: Path
) -> None:
    quick = (case for case in damaged_files(0) if case.command not in LONG)
    statuses, wrong = problems(islice(quick, 230), template, tmp_path)
    assert not wrong
    assert statuses[0] > 20 < statuses[2]


@pytest.mark.slow
def test_a_run_goes_on_from_damaged_files_or_names_one(template: Path, tmp_path: Path) -> None:
    long = (case for case in damaged_files(0) if case.command in LONG)
    statuses, wrong = problems(islice(long, 14), template, tmp_path)
    assert not wrong
    assert statuses[2] > 5
