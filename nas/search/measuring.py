"""Measuring the latency of what may be chosen: the front, or the short list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import optuna

from nas.latency.measure import Latency
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.objective import Objective
from nas.search.study import keep_measured, records
from nas.search.trials import MeasuredLatency, Record
from nas.utilities.interrupt import StopRequest
from search_space import Architecture

MeasureLatency = Callable[[Architecture, str], Latency]
"""Measures an architecture's latency on a device."""


Choose = Callable[[Mapping[int, Record]], Iterable[Record]]
"""Says what may be chosen, of all records by number; what is measured to be too slow is not."""


def measure_chosen(
    study: optuna.Study,
    constrained: ConstrainedSpace,
    measure: MeasureLatency,
    *,
    choose: Choose,
    stop: StopRequest,
    on_measured: Callable[[Record, Objective, MeasuredLatency], None],
) -> None:
    """Measure the latency of whatever is chosen until all of it is measured.

    What is measured to be over a limit is not chosen again, and what takes its place is measured
    too.
    Nothing may run on the devices meanwhile: the caller sees to that.

    Args:
        study: Of a search that is over.
        constrained: Under which it searched; devices that are not here are passed over.
        measure: Measures one.
        choose: See `Choose`.
        stop: Looked at before every measurement.
        on_measured: Called after every measurement with what was known before it, and with the
            latency that was measured.

    Raises:
        Interrupted: If a stop was requested; what was measured is kept.
    """
    objectives = constrained.objectives
    here = [o for o in objectives if o.device is not None and o.device in constrained.measured]
    while True:
        waiting = [
            (record, objective)
            for record in choose(records(study))
            for objective in here
            if objective.name not in record.measured
        ]
        if not waiting:
            return
        # The most accurate first, whose latency is asked for most.
        record, objective = max(waiting, key=lambda pair: pair[0].accuracy or 0.0)
        stop.check()
        assert objective.device is not None
        latency = measure(Architecture.model_validate(record.architecture), objective.device)
        measured = MeasuredLatency(
            median_ms=latency.median_ms,
            iqr_ms=latency.iqr_ms,
            unstable=latency.unstable,
            excess=objective.excess(latency.median_ms),
            slowdown=latency.slowdown,
        )
        keep_measured(study, record.hash, objective.name, measured)
        on_measured(record, objective, measured)
