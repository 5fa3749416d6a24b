"""The tables and pages of a run, drawn from what lies in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.latency.table import LatencyTable
from nas.report.pages import write_report
from nas.report.run_summary import RunSummary
from nas.report.trainings import Trainings
from nas.runs.folder import RunFolder
from nas.runs.one_retraining import retrained_networks
from nas.search.study import load_study, records, with_genes
from nas.search.trials import from_scratch, trials_table, tried_alone
from nas.search.tryout import accuracies_by_rung
from nas.training.curve import read_curve
from nas.utilities.errors import InputError
from search_space import Architecture

if TYPE_CHECKING:
    import pandas as pd


def draw(folder: RunFolder) -> tuple[pd.DataFrame, RunSummary]:
    """Write the tables and pages of a run that has searched; its trials and its summary.

    One process at a time does it; others wait for it.

    Raises:
        InputError: If the run has not come that far, has an objective that is not known here, what
            it wrote is damaged, or another process takes too long to draw.
    """
    if not folder.summary.exists():
        raise InputError(f"{folder.path}: the search has not finished; run its command again")
    with folder.locked_for_drawing():
        summary = RunSummary.load(folder.summary)
        return write_pages(folder, folder.path, summary, kept_trainings(folder))


def write_pages(
    folder: RunFolder,
    target: Path,
    summary: RunSummary,
    trainings: Trainings,
    *,
    under_way: str = "",
) -> tuple[pd.DataFrame, RunSummary]:
    """Write the tables and pages of what a run has found into a folder.

    Gives the trials, and the summary with what is known by now of the short list.

    Args:
        folder: Of the run.
        target: Where they go; the folders of networks that were retrained are there.
        summary: Of the run.
        trainings: What is told of them.
        under_way: As `write_report` takes it.

    Raises:
        InputError: If what the run wrote is damaged.
    """
    study = load_study(folder.journal)
    known = records(study)
    summary = replace(
        summary,
        short_list=tried_alone(known.values()),
        finalists=from_scratch(known.values()),
    )
    trials = with_genes(trials_table(known, summary.objectives), study)
    write_report(
        target,
        trials,
        summary,
        under_way=under_way,
        architectures={
            record.hash: Architecture.model_validate(record.architecture)
            for record in known.values()
        },
        tables={
            device: LatencyTable.load(path)
            for device in summary.latency
            if (path := folder.latency_table(device)).exists()
        },
        space=folder.config.space,
        trainings=trainings,
    )
    return trials, summary


def kept_trainings(folder: RunFolder) -> Trainings:
    """What a run's folder tells of its trainings.

    Raises:
        InputError: If a file of them is damaged.
    """
    return Trainings(
        supernet=read_curve(folder.curve),
        rungs=accuracies_by_rung(folder.tried),
        retrained=retrained_networks(folder.path),
    )
