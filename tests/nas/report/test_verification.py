"""Costs beside the counts of the built network."""

import io

import pytest
from rich.console import Console

from nas.report.verification import (
    WHOLE,
    Counted,
    check_agreement,
    count_parts,
    count_whole,
    verification_table,
)
from nas.utilities.errors import Disagreement, InputError
from search_space import DESIGNS, PRESETS, Cost, cost_table, total_cost

ARCHITECTURE = PRESETS["nano"].scaled(1.0)
SIZES = {"image_size": 64, "num_classes": 10}


def test_every_part_and_the_whole_are_counted_by_torch_and_by_fvcore() -> None:
    counted = count_parts(ARCHITECTURE, **SIZES)
    parts = [part.name for part in cost_table(ARCHITECTURE, **SIZES)]
    assert [row.name for row in counted] == [*parts, WHOLE]
    check_agreement(counted)
    whole = total_cost(ARCHITECTURE, **SIZES)
    assert count_whole(ARCHITECTURE, **SIZES) == counted[-1]
    assert (counted[-1].torch, counted[-1].fvcore_macs) == (whole, whole.macs)


def test_a_difference_names_the_part_both_numbers_and_who_counted() -> None:
    right = Counted(name="stem", closed=Cost(macs=5), torch=Cost(macs=5), fvcore_macs=5)
    wrong = Counted(
        name="head", closed=Cost(params=1, macs=7), torch=Cost(params=2, macs=7), fvcore_macs=6
    )
    check_agreement([right])
    assert wrong.differences == [
        "head: params 1 in closed form, 2 by torch",
        "head: macs 7 in closed form, 6 by fvcore",
    ]
    with pytest.raises(Disagreement, match=r"head: params 1 in closed form, 2 by .*and 1 more"):
        check_agreement([right, wrong])


def test_the_table_of_the_largest_design_fits_eighty_columns() -> None:
    largest = max((design.architecture for design in DESIGNS), key=lambda a: total_cost(a).macs)
    rows = [
        Counted(name=part.name, closed=part.cost, torch=part.cost, fvcore_macs=part.cost.macs)
        for part in cost_table(largest)
    ]
    cost = total_cost(largest)
    rows.append(Counted(name=WHOLE, closed=cost, torch=cost, fvcore_macs=cost.macs))
    times = dict.fromkeys((row.name for row in rows), 1234.567)
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(verification_table(rows, title="it", milliseconds=times))
    text = console.export_text()
    assert "…" not in text
    assert text.count(f"{cost.macs:,}") == 3
    assert f"{len(rows)} of {len(rows)} agree" in text


def test_a_network_that_has_no_room_in_memory_is_not_built() -> None:
    with pytest.raises(InputError, match="GB of memory"):
        count_whole(ARCHITECTURE, image_size=10**6, num_classes=10)
