"""A run, as Python sees it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.export.network import exported_front
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.training.checkpoint import load_checkpoint, unusable
from nas.utilities.errors import InputError
from search_space import Architecture, ArchitectureError
from supernet import Network, Store, load_exported

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from nas.report.run_summary import RunSummary


class Run:
    """A run and what it found; `nas.search` and `nas.open_run` return one.

    Everything is read from the run's folder when it is asked for. Ranks are those of the folders
    `front/<rank>`: 1 is the best architecture of the front, which `best/` holds too.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def config(self) -> RunConfig:
        """What the results depend on.

        Raises:
            InputError: If config.json is broken.
        """
        return self.folder.config

    @property
    def summary(self) -> RunSummary:
        """What was asked of the run, and how it was measured.

        Raises:
            InputError: If the search has not finished.
        """
        from nas.report.run_summary import RunSummary

        if not self.folder.summary.exists():
            raise InputError(f"{self.path}: the search has not finished; run its command again")
        return RunSummary.load(self.folder.summary)

    @property
    def trials(self) -> pd.DataFrame:
        """Every architecture that was decided, one row each, as in `trials.csv`.

        The last columns are its genes, as Optuna knows them.

        Raises:
            InputError: If the search has not finished.
        """
        from nas.search.study import load_study, records, with_genes
        from nas.search.trials import trials_table

        objectives = self.summary.objectives
        study = load_study(self.folder.journal)
        return with_genes(trials_table(records(study), objectives), study)

    @property
    def front(self) -> pd.DataFrame:
        """The Pareto front, the best first; the index is the rank, from 1.

        Where a short list was tried, it is the front of that: `accuracy` is then that of training
        alone, and `inherited` that of the supernet's weights. `standing` says who stands before
        whom, as `nas.search.front.judged` has it.

        Raises:
            InputError: If the search has not finished.
        """
        from nas.search.front import judged, ranked_front

        return ranked_front(judged(self.trials), self.summary.objectives)

    @property
    def best(self) -> pd.Series:
        """The row of `front` with rank 1.

        Raises:
            InputError: If the search has not finished, or nothing was evaluated.
        """
        front = self.front
        if front.empty:
            raise InputError(f"{self.path}: no architecture was evaluated")
        return front.iloc[0]

    def front_under(self, **limits: Any) -> pd.DataFrame:
        """The Pareto front of what was evaluated, under other limits.

        The run's own limits hold where no other is given. The column `front` says which front a
        row is on: `inherited`, that of all by inherited accuracies (`accuracy`), `alone`, that of
        what was tried by training it alone (`tried`), or `both`.

        Args:
            limits: `budget="1GFLOPs"`, `latency={"cuda": "2ms"}`, named as in `nas.search`.

        Raises:
            InputError: If a limit is wrong, or the search has not finished.
            NothingFound: If nothing that was evaluated meets the limits.
        """
        from nas.runs.other_limits import front_under

        return front_under(self, **limits).rows

    def architecture(self, rank: int = 1) -> Architecture:
        """The architecture of that rank.

        Raises:
            InputError: If there is none.
        """
        try:
            return Architecture.load(self._exported(rank))
        except ArchitectureError as error:
            raise InputError(f"{error}; run the search again to export it anew") from None

    def network(self, rank: int = 1) -> Network:
        """The network of that rank with the weights that it was exported with, in eval mode.

        Raises:
            InputError: If there is none, or it cannot be read.
        """
        folder = self._exported(rank)
        try:
            network, _ = load_exported(folder)
        except ValueError as error:
            raise InputError(f"{error}; run the search again to export it anew") from None
        return network

    def supernet(self) -> Store:
        """The trained shared weights, on the CPU; `subnet` and `extract` give networks of them.

        Raises:
            InputError: If the supernet is not trained yet, or cannot be read.
        """
        return trained_store(self.folder, device="cpu")

    def figure(self) -> go.Figure:
        """The plot of accuracy against each cost that `pareto.html` shows.

        Raises:
            InputError: If the search has not finished.
        """
        from nas.report.figures import pareto_figure
        from nas.report.trainings import retrained_table
        from nas.runs.one_retraining import retrained_networks

        trials = self.trials
        retrained = retrained_table(trials, retrained_networks(self.path))
        return pareto_figure(trials, self.summary, retrained)

    def _repr_html_(self) -> str:
        """What a notebook shows: what was asked, and the front."""
        if not self.folder.summary.exists():
            return f"<p>{html.escape(str(self))}: the search has not finished</p>"
        apart = ("number", "state", "violation", "failure", "seconds", *self.config.space.genes)
        front = self.front.drop(columns=list(apart))
        asked = f"{self.summary.data}, space {self.summary.space}, {self.summary.budget_text}"
        caption = f"<p><b>{html.escape(str(self.path))}</b>: {html.escape(asked)}</p>"
        return caption + str(front.to_html(float_format="{:.4g}".format))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _exported(self, rank: int) -> Path:
        folder = self.folder.front / str(rank)
        if not folder.is_dir():
            ranks = len(exported_front(self.path))
            there = f"1 to {ranks}" if ranks else "none, the search has not finished"
            raise InputError(f"`rank` {rank}: {self.path} has exported {there}")
        return folder


def trained_store(folder: RunFolder, *, device: str) -> Store:
    """The supernet of a run with its final weights.

    Raises:
        InputError: If it is not trained yet, or the checkpoint cannot be read.
    """
    path = folder.checkpoint
    if not path.exists():
        raise InputError(f"{folder.path}: the supernet is not trained yet; run its command again")
    weights = load_checkpoint(path, device=device).tensors
    try:
        num_classes = len(weights["head.bias"])
        return Store(folder.config.space, num_classes=num_classes, device=device, weights=weights)
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(path, error) from None
