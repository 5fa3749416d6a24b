import pytest

from nas.objectives.objective import (
    ACCURACY,
    CLOSED_FORM,
    MACS,
    MEMORY,
    PARAMS,
    Objective,
    latency_on,
)
from nas.utilities.errors import InputError
from search_space import Cost

COST = Cost(params=12_300_000, macs=1_871_234_567, activations=5, peak=1_500_000)
ENERGY = Objective(name="energy_use", label="energy", unit="mJ", definition="guessed")


def test_closed_forms_read_what_the_cost_holds() -> None:
    values = {name: o.value(COST) for name, o in CLOSED_FORM.items() if o.value is not None}
    assert values == {"macs": 1_871_234_567, "params": 12_300_000, "memory": 6_000_000}


def test_only_accuracy_is_maximised_and_only_params_are_no_objective_of_a_study() -> None:
    everything = [ACCURACY, *CLOSED_FORM.values(), latency_on("cpu")]
    assert [o.name for o in everything if o.direction == "maximize"] == ["accuracy"]
    assert [o.name for o in everything if not o.searched] == ["params"]


def test_an_upper_limit_on_what_is_maximised_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracy is maximised"):
        Objective(name="accuracy", label="", unit="", definition="", direction="maximize", limit=1)


@pytest.mark.parametrize(
    ("objective", "value", "amount", "named", "cell"),
    [
        (MACS, 2e9, "2 GMACs", "2 GMACs", "2 G"),
        (MACS, 7, "7 MACs", "7 MACs", "7"),
        (PARAMS, 10_000_000, "10 M params", "10 M params", "10 M"),
        (PARAMS, 7, "7 params", "7 params", "7"),
        (MEMORY, 64_000_000, "64 MB", "64 MB of memory", "64 MB"),
        (MEMORY, 900, "900 B", "900 B of memory", "900 B"),
        (ENERGY, 0.25, "0.25 mJ", "0.25 mJ of energy", "0.25 mJ"),
    ],
)
def test_values_are_written_with_their_units(
    objective: Objective, value: float, amount: str, named: str, cell: str
) -> None:
    assert objective.amount(value) == amount
    assert objective.named_amount(value) == named
    assert objective.cell(value) == cell


def test_latencies_are_written_with_their_device() -> None:
    latency = latency_on("cuda:1")
    assert latency.amount(15.0) == latency.named_amount(15.0) == "15 ms on cuda:1"


@pytest.mark.parametrize(
    ("objective", "title", "axis"),
    [
        (MACS, "MACs at 160 px", "MACs at 160 px (G)"),
        (PARAMS, "params", "params (M)"),
        (MEMORY, "memory at 160 px", "memory at 160 px (MB)"),
        (latency_on("cuda:1"), "latency on cuda:1", "latency on cuda:1 (ms)"),
        (ENERGY, "energy", "energy (mJ)"),
    ],
)
def test_axes_say_the_size_of_the_images_where_it_matters_and_the_unit(
    objective: Objective, title: str, axis: str
) -> None:
    assert objective.title(160) == title
    assert objective.axis(160) == axis


def test_definitions_are_at_the_sizes_of_the_run() -> None:
    told = [o.defined(image_size=160, num_classes=7) for o in (MACS, PARAMS, MEMORY)]
    assert told[0] == "multiply-adds of one image at 160 px"
    assert told[1] == "parameters with 7 classes"
    assert "peak activation memory" in told[2]
    assert "160 px" in told[2]
    assert "{" not in "".join(told)


def test_exact_values_are_whole_where_they_are() -> None:
    assert MACS.exact(1_871_234_567) == "1,871,234,567"
    assert PARAMS.exact(7) == "7"
    assert MEMORY.exact(903_168) == "903,168 B"
    assert ENERGY.exact(1234.5678) == "1,235 mJ"
    assert ENERGY.exact(0.123456) == "0.1235 mJ"


@pytest.mark.parametrize(
    ("objective", "text", "limit"),
    [
        (MACS, "2GFLOPs", 2e9),
        (PARAMS, "10M", 1e7),
        (MEMORY, "64MB", 64e6),
        (ENERGY, "5 mJ", 5.0),
        (ENERGY, "0.5", 0.5),
        (ENERGY, "2kmJ", 2000.0),
    ],
)
def test_limits_are_read_as_people_write_them(
    objective: Objective, text: str, limit: float
) -> None:
    assert objective.parse_limit(text) == limit


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("64MB", 64_000_000),
        (" 64 mb ", 64_000_000),
        ("64M", 64_000_000),
        ("1.5GB", 1_500_000_000),
        ("900kB", 900_000),
        ("64MiB", 64 * 2**20),
        ("64 Mi", 64 * 2**20),
        ("0.5 KiB", 512),
        ("2GiB", 2**31),
        ("3211264", 3_211_264),
        ("3211264 bytes", 3_211_264),
        ("1e6B", 1_000_000),
    ],
)
def test_a_memory_is_read_in_every_form(text: str, memory: int) -> None:
    assert MEMORY.parse_limit(text) == memory


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MB",
        "much",
        "-64MB",
        "0",
        "0.2",
        "nanMB",
        "infMB",
        "64MFLOPs",
        "64 ms",
        "64iB",
        "1e18kB",
    ],
)
def test_a_memory_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^`memory` .+") as raised:
        MEMORY.parse_limit(text)
    assert repr(text) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "5 J", "-5mJ", "0", "nan", "1e30"])
def test_a_limit_that_cannot_be_read_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(InputError, match=r"^`energy_use` "):
        ENERGY.parse_limit(text)
