"""Latency tables: reading them, predicting by them, and knowing their error."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nas.latency.conditions import LatencyConditions
from nas.latency.table import (
    UNKNOWN_MARGIN,
    LatencyTable,
    TimedNetwork,
    prediction_error,
)
from nas.utilities.errors import InputError
from search_space import PRESETS
from search_space.segments import segments, space_segments

NANO = PRESETS["nano"]


def table(**fields: Any) -> LatencyTable:
    """A table of `nano` in which each segment takes as long as its label has letters."""
    found = space_segments(NANO, image_size=64)
    times = {s.label: 0.01 * len(s.label) for s in found}
    conditions = LatencyConditions(device="phone", image_size=64, threads=1)
    return LatencyTable(**{"space": "nano", "conditions": conditions, "segments": times, **fields})


def test_a_network_takes_the_overhead_and_the_sum_of_its_segments() -> None:
    architecture = NANO.scaled(1.0)
    found = segments(architecture, image_size=64)
    times = sum(0.01 * len(s.label) for s in found)
    assert table().predict(architecture) == pytest.approx(times)
    assert table(overhead_ms=1.5).predict(architecture) == pytest.approx(times + 1.5)


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    network = TimedNetwork(hash="a", macs=5, predicted_ms=1.0, measured_ms=1.1)
    written = table(networks=(network,), overhead_ms=0.1)
    (tmp_path / "table.json").write_text(written.to_json())
    assert LatencyTable.load(tmp_path / "table.json") == written
    assert LatencyTable.load(tmp_path / "table.json").digest == written.digest


def test_conditions_and_segments_are_all_that_another_tool_must_write(tmp_path: Path) -> None:
    file = tmp_path / "phone.json"
    conditions = {"device": "phone", "image_size": 224, "threads": 4}
    content = {"space": "nano", "conditions": conditions, "segments": {"head mean 64": 0.2}}
    file.write_text(json.dumps(content))
    read = LatencyTable.load(file)
    assert read.conditions.device == "phone"
    assert read.conditions.chip == ""  # not the chip of this machine
    assert read.error is None
    assert read.error_text.startswith("unknown")
    assert read.margin == UNKNOWN_MARGIN


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"segments": {"head mean 64": math.nan}}, "segments.head mean 64"),
        ({"segments": {"head mean 64": -1.0}}, "segments.head mean 64"),
        ({"segments": {}}, "segments"),
        ({"conditions": {"image_size": 224, "threads": 1}}, "conditions.device"),
        ({"speed": 1}, "speed"),
        ({"overhead_ms": math.inf}, "overhead_ms"),
        ({"networks": [{"hash": "a", "macs": 1, "predicted_ms": 1, "measured_ms": 0}]}, "networks"),
    ],
)
def test_a_broken_table_is_refused_by_the_field(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    file = tmp_path / "table.json"
    file.write_text(json.dumps(json.loads(table().to_json()) | change))
    with pytest.raises(InputError, match=r"table\.json: .*" + complaint.replace(".", r"\.")):
        LatencyTable.load(file)


def test_an_unreadable_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        LatencyTable.load(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(InputError, match=r"text\.json"):
        LatencyTable.load(tmp_path / "text.json")


def test_missing_segments_are_named() -> None:
    whole = table()
    whole.check_covers(NANO, "table.json")
    gone = min(whole.segments)
    part = whole.model_copy(
        update={"segments": {k: v for k, v in whole.segments.items() if k != gone}}
    )
    with pytest.raises(InputError, match=gone):
        part.check_covers(NANO, "table.json")
    with pytest.raises(InputError, match="'nano' that lacks segments of space 'tiny'"):
        whole.check_covers(PRESETS["tiny"], "table.json")


def test_the_error_is_that_of_the_held_out_networks() -> None:
    error = prediction_error([1.0, 2.08, 3.0, 4.36], [1.0, 2.0, 3.0, 4.0])
    assert error.mape == pytest.approx((0 + 0.04 + 0 + 0.09) / 4)
    assert (error.within_5, error.within_10) == (0.75, 1.0)
    assert error.spearman == pytest.approx(1.0)
    assert prediction_error([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]).spearman == pytest.approx(-1.0)


def test_the_margin_covers_nine_networks_in_ten() -> None:
    networks = tuple(
        TimedNetwork(hash=str(i), macs=1, predicted_ms=100.0 + i, measured_ms=100.0)
        for i in range(11)
    )
    assert table(networks=networks).margin == pytest.approx(0.09)


def test_another_device_may_run_what_torch_does_not_know(tmp_path: Path) -> None:
    conditions = {"device": "phone", "image_size": 224, "threads": 4, "runtime": "coreml"}
    content = {"conditions": {**conditions, "dtype": "int8"}, "segments": {"head mean 64": 0.2}}
    (tmp_path / "phone.json").write_text(json.dumps({"space": "base", **content}))
    read = LatencyTable.load(tmp_path / "phone.json").conditions
    assert (read.runtime, read.dtype, read.version) == ("coreml", "int8", "")
