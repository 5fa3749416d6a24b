"""Measuring the latency of what reaches the front."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from nas.latency.measure import Latency
from nas.objectives.constrained_space import ConstrainedSpace
from nas.search.front import pareto_front
from nas.search.study import keep_measured, records
from nas.search.trials import MeasuredLatency, Record, trials_table
from nas.utilities.interrupt import StopRequest
from nas.utilities.units import latency_name
from search_space import Architecture

MeasureLatency = Callable[[Architecture, str], Latency]
"""Measures an architecture's latency on a device."""


def measure_front(
    study: optuna.Study,
    constrained: ConstrainedSpace,
    measure: MeasureLatency,
    *,
    stop: StopRequest,
    on_measured: Callable[[Record, str, MeasuredLatency], None],
) -> None:
    """Measure the latency of whatever is on the front until all of the front is measured.

    What is measured to be over a limit leaves the front, and what takes its place is measured too.
    Nothing may run on the devices meanwhile: the caller sees to that.

    Args:
        study: Of a search that is over.
        constrained: Under which it searched; devices that are not here are passed over.
        measure: Measures one.
        stop: Looked at before every measurement.
        on_measured: Called after every measurement with what was known before it.

    Raises:
        Interrupted: If a stop was requested; what was measured is kept.
    """
    devices = list(constrained.limits.latency_ms)
    objectives = ("accuracy", "macs", *map(latency_name, devices))
    while True:
        known = records(study)
        front = pareto_front(trials_table(known, devices), objectives)
        waiting = [
            (known[number], device)
            for number in front["number"]
            for device in devices
            if device in constrained.measured and device not in known[number].measured
        ]
        if not waiting:
            return
        # The most accurate first: the best one is among them.
        record, device = max(waiting, key=lambda pair: pair[0].accuracy or 0.0)
        stop.check()
        latency = measure(Architecture.model_validate(record.architecture), device)
        measured = MeasuredLatency(
            median_ms=latency.median_ms,
            iqr_ms=latency.iqr_ms,
            unstable=latency.unstable,
            excess=latency.median_ms / constrained.limits.latency_ms[device] - 1,
            slowdown=latency.slowdown,
        )
        keep_measured(study, record.hash, device, measured)
        on_measured(record, device, measured)
