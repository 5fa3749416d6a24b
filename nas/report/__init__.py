"""What a run shows: tables, figures, pages and model cards, from plain tables and plain values.

Nothing here trains, measures or searches. The input is always the same pair: a table `trials` with
the columns `trial_columns`, one row for each trial that was decided, and the `RunFacts` that say
what was asked and how it was measured. pandas and plotly are imported only by the functions that
draw; a model card needs neither.
"""

from nas.report.card import ModelFacts, model_card, retrained_card
from nas.report.facts import (
    NOTABLE_DRIFT,
    RANDOM_SOURCE,
    LatencyColumns,
    LatencyFacts,
    RunFacts,
    latency_text,
    trial_columns,
)
from nas.report.figure import (
    hypervolume_figure,
    macs_latency_figure,
    pareto_figure,
    prediction_figure,
)
from nas.report.front import best, hypervolume, hypervolume_trace, pareto_front
from nas.report.page import next_commands, write_report
from nas.report.terminal import summary_table

__all__ = [
    "NOTABLE_DRIFT",
    "RANDOM_SOURCE",
    "LatencyColumns",
    "LatencyFacts",
    "ModelFacts",
    "RunFacts",
    "best",
    "hypervolume",
    "hypervolume_figure",
    "hypervolume_trace",
    "latency_text",
    "macs_latency_figure",
    "model_card",
    "next_commands",
    "pareto_figure",
    "pareto_front",
    "prediction_figure",
    "retrained_card",
    "summary_table",
    "trial_columns",
    "write_report",
]
