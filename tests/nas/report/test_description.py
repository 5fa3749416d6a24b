"""What `describe` says of an architecture."""

import io

import pytest
from rich.console import Console

from nas.latency.conditions import LatencyConditions
from nas.latency.table import LatencyTable
from nas.report.description import (
    BAR_WIDTH,
    PartLatency,
    described,
    predicted_parts,
    print_description,
    timed_parts,
)
from nas.utilities.errors import InputError
from search_space import PRESETS, cost_table, total_cost
from search_space.segments import segments

ARCHITECTURE = PRESETS["nano"].scaled(1.0)
SIZES = {"image_size": 64, "num_classes": 10}


def table(**times: float) -> LatencyTable:
    """A table of this architecture alone; segments take 1 ms unless their part is named."""
    found = segments(ARCHITECTURE, image_size=64)
    return LatencyTable(
        space="nano",
        conditions=LatencyConditions(device="phone", image_size=64, threads=1),
        segments={s.label: times.get(s.operator.split()[0], 1.0) for s in found},
    )


def test_the_parts_of_the_description_are_those_of_the_cost_table() -> None:
    facts = described(ARCHITECTURE, **SIZES, latency=None)
    cost = total_cost(ARCHITECTURE, **SIZES)
    assert (facts["hash"], facts["params"], facts["macs"]) == (
        ARCHITECTURE.hash,
        cost.params,
        cost.macs,
    )
    assert (facts["activations"], facts["peak"]) == (cost.activations, cost.peak)
    assert facts["memory_bytes"] == cost.memory_bytes()
    assert [part["name"] for part in facts["parts"]] == [
        part.name for part in cost_table(ARCHITECTURE, **SIZES)
    ]
    for key in ("params", "macs", "activations"):
        assert sum(part[key] for part in facts["parts"]) == facts[key]
    assert "latency_ms" not in facts


def test_a_table_gives_every_part_its_share_of_the_latency() -> None:
    latency = predicted_parts(ARCHITECTURE, table(mixer=3.0), "phone.json")
    facts = described(ARCHITECTURE, **SIZES, latency=latency)
    parts = {part["name"]: part["latency_ms"] for part in facts["parts"]}
    assert parts["stem"] == 1.0
    assert parts["stages.0.blocks.0"] == 4.0  # a mixer and a feed-forward
    assert sum(parts.values()) == pytest.approx(facts["latency_ms"])
    assert "phone.json" in facts["latency_conditions"]


def test_a_table_that_lacks_a_segment_is_refused_by_its_name() -> None:
    whole = table()
    gone = segments(ARCHITECTURE, image_size=64)[2].label
    kept = {label: ms for label, ms in whole.segments.items() if label != gone}
    with pytest.raises(InputError, match=r"phone\.json.*" + gone):
        predicted_parts(ARCHITECTURE, whole.model_copy(update={"segments": kept}), "phone.json")


def test_parts_are_timed_on_this_machine() -> None:
    conditions = LatencyConditions(device="cpu", image_size=64, threads=1)
    latency = timed_parts(ARCHITECTURE, conditions)
    assert latency.milliseconds.keys() == {
        part.name for part in cost_table(ARCHITECTURE, image_size=64)
    }
    assert all(milliseconds > 0 for milliseconds in latency.milliseconds.values())


def test_shares_of_macs_and_latency_are_drawn_side_by_side() -> None:
    names = [part.name for part in cost_table(ARCHITECTURE, **SIZES)]
    slow = {name: 9.0 if name == "head" else 1.0 / (len(names) - 1) for name in names}
    latency = PartLatency(device="cpu", milliseconds=slow, how="made up")
    text = io.StringIO()
    console = Console(file=text, width=100)
    print_description(described(ARCHITECTURE, **SIZES, latency=latency), ARCHITECTURE, console)
    drawn = text.getvalue().split("where it goes")[1]
    head = next(line for line in drawn.splitlines() if line.strip().startswith("head"))
    assert "90.0% " + "█" * BAR_WIDTH in head
    assert "latency: 10 ms, made up" in text.getvalue()
