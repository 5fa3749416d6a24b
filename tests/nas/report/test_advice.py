"""What a run's page advises: each rule where it holds and where it does not."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas.report.advice import (
    Advice,
    advice,
    changed_command,
    learn_more,
    raise_limit,
    retrain,
    search_on,
    use_budget,
)
from nas.report.run_summary import RunSummary
from nas.search.front import judged
from nas.search.trials import SCRATCH_COLUMNS, TRIED_COLUMNS, trial_columns
from nas.utilities.commands import program

FOLDER = Path("results/my run")


def summary(**changes: Any) -> RunSummary:
    values: dict[str, Any] = {
        "command": "python run_search.py --budget 2GFLOPs --workers 2 --out 'results/my run'",
        "data": "digits",
        "num_classes": 10,
        "search_images": 400,
        "space": "base",
        "space_size": 1_000_000,
        "limits": {"macs": 2e9},
        "reachable": {"macs": (4e8, 5e9), "params": (1e6, 3e7)},
        "image_size": 224,
        "proxy_size": 64,
        "sampler": "surrogate",
        "seed": 0,
        "device": "cpu",
        "supernet_steps": 900,
        "supernet_seconds": 300.0,
        "search_seconds": 100.0,
    }
    return RunSummary(**(values | changes))


def trial(number: int, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "number": number,
        "hash": f"{number:016x}",
        "state": "evaluated",
        "accuracy": 0.5,
        "macs": 1.5e9,
        "params": 1e7,
        **dict.fromkeys((*TRIED_COLUMNS, *SCRATCH_COLUMNS), float("nan")),
        "source": "sampler",
    }
    return values | changes


def trials(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=trial_columns(summary().objectives))


def winner(**changes: Any) -> pd.Series:
    return pd.Series(trial(0, **changes))


def given(step: Advice | None) -> Advice:
    assert step is not None
    return step


def test_accuracies_near_chance_ask_for_a_longer_training_and_for_nothing_else() -> None:
    noise = trials(*(trial(n, accuracy=0.1 + 0.001 * n, macs=1e8 * (n + 1)) for n in range(20)))
    first, second, *_ = advice(FOLDER, noise, summary())
    assert first.command == "python run_search.py --budget 2GFLOPs --workers 2 --steps 3600"
    assert "retrain" in second.command
    learned = trials(*(trial(n, accuracy=0.5) for n in range(20)))
    assert not any("--steps" in step.command for step in advice(FOLDER, learned, summary()))


def test_who_searches_another_run_s_supernet_is_not_asked_to_train_it() -> None:
    borrowed = summary(supernet_run="results/first")
    assert learn_more(borrowed) is None
    assert use_budget(best_needs(5e8), borrowed) is None


def test_a_best_architecture_at_the_limit_asks_for_a_larger_one() -> None:
    step = given(raise_limit(winner(macs=1.95e9), summary()))
    assert "the limit of 2 GMACs" in step.why
    assert step.command == "python run_search.py --workers 2 --budget 3GMACs"
    assert raise_limit(winner(macs=1.9e9), summary()) is None


def test_a_limit_is_raised_no_further_than_the_space_reaches() -> None:
    narrow = summary(reachable={"macs": (4e8, 2.5e9), "params": (1e6, 3e7)})
    assert given(raise_limit(winner(macs=2e9), narrow)).command.endswith("--budget 2.5GMACs")
    loose = summary(reachable={"macs": (4e8, 2e9), "params": (1e6, 3e7)})
    assert raise_limit(winner(macs=2e9), loose) is None


def test_a_limit_on_something_else_than_macs_is_raised_by_its_own_flag() -> None:
    command = "python run_search.py --params=10M"
    limited = summary(command=command, limits={"params": 1e7})
    step = given(raise_limit(winner(params=9.9e6), limited))
    assert step.command == "python run_search.py --params 15Mparams"


def best_needs(macs: float) -> pd.DataFrame:
    """What is judged where the best needs so many MACs, and a larger one is worse."""
    return judged(trials(trial(0, accuracy=0.6, macs=macs), trial(1, macs=1.9e9)))


def test_a_best_architecture_far_below_the_budget_says_what_that_may_mean() -> None:
    step = given(use_budget(best_needs(7e8), summary()))
    assert "700 MMACs of 2 GMACs" in step.why
    assert "--steps 1800" in step.command
    assert use_budget(best_needs(1.2e9), summary()) is None
    assert use_budget(best_needs(7e8), summary(limits={"params": 1e7})) is None
    assert use_budget(best_needs(7e8)[:1], summary()) is None  # none was larger


def test_a_budget_beyond_the_space_is_not_what_the_best_is_held_against() -> None:
    small = {"macs": (4e8, 2e9), "params": (1e6, 3e7)}
    assert use_budget(best_needs(1.2e9), summary(limits={"macs": 1e11}, reachable=small)) is None


def test_a_search_that_still_finds_better_ones_goes_on_in_its_folder() -> None:
    rising = [0.4] * 80 + [0.45] * 20
    step = given(search_on(rising, summary()))
    assert "from 0.400 to 0.450" in step.why
    assert step.command.endswith("--workers 2 --out 'results/my run' --trials 200")
    early = [0.4] * 79 + [0.45] * 21
    assert search_on(early, summary()) is None
    assert search_on([0.4] * 99 + [0.404], summary()) is None


def test_a_search_that_ended_before_it_had_as_many_as_were_asked_for_does_not_go_on() -> None:
    rising = [0.4] * 80 + [0.45] * 20
    assert search_on(rising, summary(trials=200)) is None
    assert search_on(rising, summary(trials=100)) is not None


@pytest.mark.parametrize("count", [10, 100])
def test_a_search_of_few_evaluations_or_of_all_there_are_does_not_go_on(count: int) -> None:
    rising = [0.1 + 0.01 * n for n in range(count)]
    assert search_on(rising, summary(space_size=100)) is None
    assert (search_on(rising, summary()) is None) == (count == 10)


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ("", "nas.retrain('results/my run', top=1)"),
        (", data=shapes", "nas.retrain('results/my run', top=1, data=...)"),
    ],
)
def test_a_run_from_python_is_retrained_from_there(given: str, call: str) -> None:
    asked = summary(command=f"nas.search(budget='2GFLOPs'{given})")
    assert retrain(judged(trials(trial(0))), asked, FOLDER).command == call


def test_near_chance_a_borrowed_supernet_is_to_be_trained_by_its_own_run() -> None:
    noise = trials(*(trial(n, accuracy=0.1) for n in range(20)))
    told = summary(supernet_run="results/first").warning(noise)
    assert "that of results/first: train another" in told
    assert "--" not in told
    assert "--steps, now 900" in summary().warning(noise)


def test_what_ties_with_the_best_of_the_short_list_is_retrained_with_it() -> None:
    def tried(*accuracies: float) -> Advice:
        rows = [
            trial(n, tried=a, tried_steps=90.0, macs=2e9 - 1e8 * n)
            for n, a in enumerate(accuracies)
        ]
        return retrain(judged(trials(*rows)), summary(short_list=3), FOLDER)

    # One standard error of 400 images is 2 points at 80 %, so a difference has 2.8.
    close = tried(0.80, 0.78, 0.70)
    assert "the best 2 of the front lie within their standard errors" in close.why
    assert close.command == f"{program()} retrain 'results/my run' --top 2"
    apart = tried(0.80, 0.75, 0.70)
    assert apart.why == "train the best architectures alone"
    assert apart.command == f"{program()} retrain 'results/my run' --top 3"


def test_where_there_was_a_final_what_ties_in_it_is_retrained() -> None:
    known = {"tried": 0.9, "tried_steps": 90.0, "tried_loss": 0.5, "tried_images": 400.0}
    rows = [
        trial(n, **known, scratch=a, scratch_steps=800.0, scratch_loss=loss, macs=2e9 - 1e8 * n)
        for n, (a, loss) in enumerate([(0.80, 0.5), (0.79, 0.6), (0.70, 0.7)])
    ]
    run = summary(short_list=3, finalists=3)
    told = retrain(judged(trials(*rows)), run, FOLDER)
    assert told.command.endswith("--top 2")


def test_inherited_accuracies_tie_with_none() -> None:
    rows = trials(trial(0, accuracy=0.8), trial(1, accuracy=0.79, macs=1e9))
    assert retrain(judged(rows), summary(), FOLDER).command.endswith("--top 2")


def test_no_more_are_to_be_retrained_than_the_front_has() -> None:
    rows = [trial(n, accuracy=0.8 - 0.1 * n, macs=1e9 - 1e8 * n) for n in range(5)]
    assert retrain(judged(trials(*rows)), summary(), FOLDER).command.endswith("--top 3")
    assert retrain(judged(trials(*rows[:1])), summary(), FOLDER).command.endswith("--top 1")


def test_near_chance_nothing_is_said_of_equals() -> None:
    tried = [trial(n, accuracy=0.1, tried=0.1, tried_steps=60, macs=1e9 + n) for n in range(3)]
    run = summary(short_list=3)
    steps = advice(FOLDER, trials(*tried), run)
    assert not any("standard errors" in step.why for step in steps)
    assert any("retrain" in step.command for step in steps)


def test_what_was_retrained_is_not_to_be_retrained_again(tmp_path: Path) -> None:
    rows = trials(trial(0), trial(1, macs=1e9))
    done = tmp_path / "retrain" / "1"
    done.mkdir(parents=True)
    commands = [step.command for step in advice(tmp_path, rows, summary())]
    assert any(" retrain " in command for command in commands)  # it has only begun
    (done / "metrics.json").write_text("{}")
    commands = [step.command for step in advice(tmp_path, rows, summary())]
    assert not any(" retrain " in command for command in commands)
    assert f"{program()} export {done}" in commands


def test_the_last_of_all_is_to_look_and_to_redraw() -> None:
    *_, look, redraw = advice(FOLDER, trials(trial(0)), summary())
    assert look.command == f"{program()} describe 'results/my run/best/architecture.json'"
    assert redraw.command == f"{program()} plot 'results/my run'"


def test_where_nothing_was_evaluated_nothing_is_advised() -> None:
    assert advice(FOLDER, trials(trial(0, state="infeasible")), summary()) == []


def test_a_changed_command_keeps_all_other_flags() -> None:
    command = (
        "python -m nas search --data '/data/my birds' --epochs 20 --budget=2GFLOPs --out=here "
        "--seed 1"
    )
    changed = changed_command(summary(command=command), {"steps": 50})
    assert changed == (
        "python -m nas search --data '/data/my birds' --budget=2GFLOPs --seed 1 --steps 50"
    )
    resumed = changed_command(summary(command=command), {"trials": 9}, keeps_folder=True)
    assert resumed == f"{command} --trials 9"


def test_a_run_from_python_is_told_the_argument_that_changes() -> None:
    asked = summary(command="nas.search(budget='2GFLOPs', out='here')")
    assert changed_command(asked, {"steps": 50}) == "nas.search(..., steps=50)"
    assert changed_command(asked, {"budget": "3GMACs"}) == "nas.search(..., budget='3GMACs')"
