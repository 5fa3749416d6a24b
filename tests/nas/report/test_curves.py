"""The figures of what training did."""

from typing import Any

import pandas as pd
import pytest

from nas.report.cards import class_accuracies
from nas.report.curves import (
    POINTS,
    confusion_figure,
    retrained_figure,
    rungs_figure,
    supernet_figure,
)
from nas.report.pages import taken_most
from nas.report.trainings import RetrainedNetwork, Trainings, retrained_table
from nas.training.alone import Point
from nas.training.curve import CurvePoint


def named(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def network(**changes: Any) -> RetrainedNetwork:
    values: dict[str, Any] = {
        "name": "retrain/1",
        "hash": "a",
        "start": "scratch",
        "steps": 2,
        "image_size": 32,
        "lr": 1e-3,
        "exported": 0.5,
        "retrained": 0.75,
        "test_images": 100,
    }
    return RetrainedNetwork(**values | changes)


TRIALS = pd.DataFrame(
    {
        "number": [0, 1, 2, 3],
        "hash": ["a", "b", "a", "c"],
        "accuracy": [0.25, 0.5, 0.25, float("nan")],
        "macs": [10, 20, 10, 30],
    }
)


def test_the_losses_of_teacher_and_supernet_stand_over_the_accuracies_of_three_subnets() -> None:
    none = [None, None, None]
    curve = [
        CurvePoint("teacher", 1, 3.0, none),
        CurvePoint("supernet", 1, 2.0, none),
        CurvePoint("supernet", 2, 1.0, [0.5, 0.25, None]),
    ]
    traces = named(supernet_figure(Trainings(supernet=curve)))
    assert traces["loss, teacher"].y == (3.0,)
    assert (traces["loss, supernet"].x, traces["loss, supernet"].y) == ((1, 2), (2.0, 1.0))
    assert (traces["largest subnet"].x, traces["largest subnet"].y) == ((2,), (50.0,))
    assert traces["smallest subnet"].yaxis != traces["loss, supernet"].yaxis
    assert "random subnet" not in traces


def test_a_long_training_is_drawn_by_means_of_its_steps() -> None:
    curve = [Point(step, float(step % 10), 1e-3, None) for step in range(1, 10 * POINTS + 1)]
    (trace,) = retrained_figure([network(curve=curve)]).data
    assert len(trace.x) == POINTS
    assert set(trace.y) == {4.5}


def test_each_of_the_short_list_rises_from_what_it_inherited() -> None:
    rungs = {"a": {2: 0.5, 6: 0.75}, "b": {2: 0.6}, "gone": {2: 0.9}, "c": {}}
    others, best = rungs_figure(Trainings(rungs=rungs), TRIALS).data
    assert (best.x, best.y) == ((0, 2, 6), (25.0, 50.0, 75.0))
    assert best.name == "the most accurate after the last rung"
    assert (others.x, others.y) == ((0, 2), (50.0, 60.0))
    assert "trial 1" in others.hovertemplate


@pytest.mark.parametrize(("accuracy", "traces"), [(None, 1), (0.5, 2)])
def test_held_out_accuracies_are_drawn_where_they_were_measured(
    accuracy: float | None, traces: int
) -> None:
    curve = [Point(1, 2.0, 1e-3, None), Point(2, 1.0, 1e-3, accuracy)]
    figure = retrained_figure([network(name="<b>/1", curve=curve)])
    assert len(figure.data) == traces
    assert all(trace.name == "&lt;b&gt;/1" for trace in figure.data)


def test_the_map_of_confusions_is_of_shares_and_tells_counts() -> None:
    counts = [[3, 1], [0, 0]]
    classes = class_accuracies(counts, ["cat", "<dog>"])
    (trace,) = confusion_figure(classes, ["cat", "<dog>"], counts).data
    assert [list(row) for row in trace.z] == [[75.0, 25.0], [0.0, 0.0]]
    assert [list(row) for row in trace.text] == counts
    assert trace.customdata[0][1] == "cat, taken for &lt;dog&gt;"


def test_of_many_classes_the_map_has_those_that_the_worst_are_taken_for() -> None:
    confusion = [[0] * 60 for _ in range(60)]
    for true in range(50):
        confusion[true][55 + true % 2] = 1
    assert taken_most(confusion, range(40)) == [55, 56]
    for true in range(60):
        confusion[true] = [1] * 60
    assert len(taken_most(confusion, range(40))) == 40


def test_what_was_retrained_stands_beside_the_trial_that_was_evaluated() -> None:
    table = retrained_table(TRIALS, [network(), network(name="retrain/2", hash="unknown")])
    (row,) = table.to_dict("records")
    assert (row["folder"], row["number"], row["macs"]) == ("retrain/1", 0, 10)
    assert (row["inherited"], row["exported"], row["retrained"]) == (0.25, 0.5, 0.75)


def test_where_nothing_was_retrained_the_table_is_empty() -> None:
    assert retrained_table(TRIALS, []).empty
