"""An objective that is added in one entry is in everything that iterates over objectives."""

import json
from pathlib import Path

import pandas as pd
import pytest
from small_runs import NANO, SMALL, Outcome, command, constrained_nano, without_figures

from nas.objectives.objective import CLOSED_FORM, Objective
from nas.report.figures import pareto_figure
from nas.report.run_summary import RunSummary
from nas.runs.folder import RunFolder
from nas.search.study import load_study
from nas.search.trials import trial_columns
from search_space import Architecture, total_cost

RUN = ("search", *SMALL, "--steps", "1", "--trials", "12", "--sampler", "random")
"""A run whose sampler does not know the limits, so that they keep something out."""


def energy_of(architecture: Architecture) -> float:
    cost = total_cost(architecture, num_classes=10)
    return 4.6e-9 * cost.macs + 640e-9 * cost.activations


ENERGIES = sorted(energy_of(architecture) for architecture in NANO.enumerate())
LIMIT = ENERGIES[100]


@pytest.fixture(scope="module")
def finished() -> dict[str, Outcome]:
    """What the run printed, once one has been made."""
    return {}


@pytest.fixture
def run(
    energy: Objective, finished: dict[str, Outcome], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A run with a limit on the added objective, and what it printed; made once."""
    folder = tmp_path_factory.getbasetemp() / "run with energy"
    if not finished:
        with without_figures():
            finished["run"] = command(*RUN, "--energy", f"{LIMIT}mJ", "--out", folder)
    outcome = finished["run"]
    assert outcome.status == 0, outcome.err
    return folder, " ".join(outcome.out.split())


@pytest.mark.slow
def test_a_run_with_a_limit_on_it_has_it_in_every_result(run: tuple[Path, str]) -> None:
    folder, printed = run
    study = load_study(folder / "study.journal")
    assert study.metric_names == ["accuracy", "macs", "energy"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", *["MINIMIZE"] * 2]

    trials, front = (pd.read_csv(folder / name) for name in ("trials.csv", "pareto.csv"))
    assert trials.columns.tolist()[3:8] == ["accuracy", "macs", "params", "energy", "loss"]
    expected = {a.hash: energy_of(a) for a in NANO.enumerate()}
    for table in (trials, front):
        assert table["energy"].tolist() == pytest.approx([expected[name] for name in table["hash"]])
    over = trials[trials["state"] == "infeasible"]
    assert (trials["energy"] > LIMIT).sum() == len(over[over["energy"] > LIMIT]) > 0
    assert over.loc[over["energy"] > LIMIT, "violation"].str.contains("energy").all()
    evaluated = trials[trials["state"] == "evaluated"].drop_duplicates("hash")
    for _, one in evaluated.iterrows():
        beaten = (
            (evaluated["accuracy"] >= one["accuracy"])
            & (evaluated["macs"] <= one["macs"])
            & (evaluated["energy"] <= one["energy"])
        ).sum() > 1
        assert (one["hash"] in set(front["hash"])) != beaten

    limit = f"{LIMIT:.3g} mJ of energy"
    card = (folder / "best" / "README.md").read_text()
    assert f"under the budget 200 MMACs, {limit}" in card
    assert "| energy | " in card
    assert "energy of one image at 224 px |" in card
    assert "energy at 224 px" in printed
    assert f"budget 200 MMACs, {limit}" in printed
    assert f"budget 200 MMACs, {limit}" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_its_figure_has_a_panel_for_it(run: tuple[Path, str]) -> None:
    folder, _ = run
    summary = RunSummary.load(folder / "summary.json")
    figure = pareto_figure(pd.read_csv(folder / "trials.csv"), summary)
    assert figure.layout.xaxis2.title.text == "energy at 224 px (mJ)"
    assert [shape.x0 for shape in figure.layout.shapes] == [0.2, pytest.approx(LIMIT)]
    names = {trace.name for trace in figure.data}
    assert "Pareto front (accuracy, MACs, energy)" in names
    told = [text for trace in figure.data for text in trace.hovertext or ()]
    assert told
    assert all("mJ of energy" in text for text in told)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_run_is_taken_up_and_drawn_anew_where_the_entry_is_there_and_refused_elsewhere(
    run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run
    assert RunFolder(folder).config.added_limits == {"energy": LIMIT}
    again = command(*RUN, "--energy", f"{LIMIT}mJ", "--out", folder)
    assert again.status == 0, again.err
    assert "search: done already" in again.out
    assert command("plot", folder).status == 0
    monkeypatch.delitem(CLOSED_FORM, "energy")
    refused = command("plot", folder)
    assert refused.status == 2
    (line,) = refused.err.splitlines()
    assert "'energy' is no objective that can be limited" in line


def test_a_limit_on_it_that_is_out_of_reach_is_refused_with_its_range(energy: Objective) -> None:
    outcome = command(*RUN, "--energy", "1e-3 mJ", "--out", "never")
    assert outcome.status == 2
    least, most = (f"{ENERGIES[end]:.3g} mJ" for end in (0, -1))
    assert f"--energy 0.001 mJ is out of reach: space 'nano' spans {least} to {most}" in outcome.err
    told = outcome.err.split("nearest legal value is ")[1]
    assert float(told) == pytest.approx(ENERGIES[0])
    constrained = constrained_nano(energy=float(told))
    assert constrained.admits(constrained.smallest())


def test_sample_keeps_to_a_limit_on_it_and_tells_it(energy: Objective) -> None:
    flags = ("sample", "--space", "nano", "-n", "5", "--energy", f"{LIMIT}")
    sampled = json.loads(command(*flags, "--json").out)
    for data in sampled:
        cost = total_cost(Architecture.model_validate(data), num_classes=1000)
        assert 4.6e-9 * cost.macs + 640e-9 * cost.activations <= LIMIT
    lines = command(*flags).out.splitlines()
    assert len(lines) == 5
    assert all(" mJ energy  " in line for line in lines)


@pytest.mark.usefixtures("energy")
def test_without_a_limit_on_it_nothing_of_a_run_knows_it() -> None:
    objectives = constrained_nano(macs=10**9).objectives
    assert [objective.name for objective in objectives] == ["accuracy", "macs", "params"]
    assert "energy" not in trial_columns(objectives)
