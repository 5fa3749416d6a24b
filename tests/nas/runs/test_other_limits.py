"""`nas front`: what a run has evaluated, under other limits."""

import re
from pathlib import Path

import pandas as pd
import pytest
from small_runs import SMALL, command, fake_table, without_figures

from nas import open_run
from nas.runs.run import Run
from nas.utilities.errors import InputError, NothingFound


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a short list and a limit on a phone's latency."""
    place = tmp_path_factory.mktemp("front")
    (place / "phone.json").write_text(fake_table("phone", margin=0.05).to_json())
    phone = ("--latency", "phone=1s", "--latency-table", place / "phone.json")
    size = ("--steps", "1", "--trials", "8", "--short-list", "3", "--out", place / "run")
    with without_figures():
        outcome = command("search", *SMALL, *phone, *size)
    assert outcome.status == 0, outcome.err
    return place / "run"


@pytest.fixture
def run(tried: Path) -> Run:
    """That run."""
    return open_run(tried)


def test_without_other_limits_it_is_the_front_of_the_run_and_that_of_inherited_accuracies(
    run: Run,
) -> None:
    rows = run.front_under()
    alone = rows[rows["front"].isin(["alone", "both"])]
    assert set(alone["hash"]) == set(run.front["hash"])
    inherited = rows[rows["front"].isin(["inherited", "both"])].sort_values("macs")
    assert not inherited.empty
    evaluated = run.trials.query("state == 'evaluated'")
    assert inherited["accuracy"].max() == evaluated["accuracy"].max()


def test_under_tighter_limits_it_is_the_best_of_what_meets_them(run: Run) -> None:
    evaluated = run.trials.query("state == 'evaluated'")
    limit = float(evaluated["macs"].median())
    within = evaluated[evaluated["macs"] <= limit]
    rows = run.front_under(budget=limit)
    assert set(rows["hash"]) <= set(within["hash"])
    assert rows["accuracy"].max() == within["accuracy"].max()
    slower = run.front_under(latency={"phone": f"{evaluated['latency_phone_ms'].median()}ms"})
    assert (slower["latency_phone_ms"] <= evaluated["latency_phone_ms"].median()).all()
    # An objective that the search did not have is costed now.
    assert (run.front_under(memory="64MB")["memory"] > 0).all()


def test_the_command_prints_the_rows_writes_them_and_counts(tried: Path, tmp_path: Path) -> None:
    flags = ("--budget", "190MFLOPs", "--out", tmp_path / "front.csv")
    outcome = command("front", tried, *flags)
    assert outcome.status == 0, outcome.err
    rows = pd.read_csv(tmp_path / "front.csv")
    expected = open_run(tried).front_under(budget="190MFLOPs")
    assert rows["hash"].tolist() == expected["hash"].tolist()
    for number in rows["number"]:
        assert str(number) in outcome.out
    assert "of 8 evaluated architectures are within 190 MMACs, 1000 ms on phone" in outcome.out
    assert "were trained alone" in outcome.out
    assert "beyond" not in outcome.out
    shown = f"latency on phone: predicted, not measured, of {len(rows)} of the {len(rows)} shown"
    assert shown in outcome.out


def test_limits_beyond_what_was_searched_are_said(tried: Path) -> None:
    outcome = command("front", tried, "--budget", "400MFLOPs", "--params", "1M")
    assert outcome.status == 0, outcome.err
    assert "400 MMACs reach beyond the 200 MMACs that were searched" in outcome.out
    assert "knew no limit on params" in outcome.out
    assert f"the supernet of {tried}" in outcome.out


@pytest.mark.parametrize(
    ("flags", "status", "told"),
    [
        (("--budget", "1kFLOPs"), 1, "none of the 8 evaluated architectures is within 1 kMACs"),
        (("--budget", "much"), 2, "--budget 'much' is no number with a known unit"),
        (("--latency", "cuda=2ms"), 2, r"--latency cuda=.*: .* knows no latency on 'cuda' \(phone"),
        (("--out", "/dev/null/x.csv"), 2, "--out /dev/null/x.csv: cannot be written"),
        (("--out", "notes.txt"), 2, r"--out notes.txt: the name must end in \.csv"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(
    tried: Path, flags: tuple[str, ...], status: int, told: str
) -> None:
    outcome = command("front", tried, *flags)
    assert outcome.status == status
    assert re.match(f"error: {told}", outcome.err), outcome.err
    assert outcome.err.count("\n") == 1


def test_python_gets_the_same_errors(run: Run) -> None:
    with pytest.raises(InputError, match="`watts` is no argument, nor a limit"):
        run.front_under(watts=3)
    with pytest.raises(NothingFound):
        run.front_under(budget=1000)
