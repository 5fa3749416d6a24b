"""The third step of a run: measuring the latency of what is on the front."""

from collections.abc import Callable
from functools import cache

from nas.latency.measure import Latency
from nas.objectives.objective import Objective
from nas.report.run_summary import NOTABLE_SLOWDOWN
from nas.runs.job import Job
from nas.runs.latency_tables import LatencyMethods
from nas.search.measuring import measure_front
from nas.search.study import load_study
from nas.search.trials import MeasuredLatency, Record
from nas.utilities.units import format_milliseconds
from search_space import Architecture
from supernet import Network, Store


def measure(job: Job, store: Store, methods: LatencyMethods) -> None:
    """Measure what is on the front, while nothing else runs, where latency is limited."""
    study = load_study(job.folder.journal)
    seconds = job.clock.measuring("measuring_seconds")

    @cache
    def meter(device: str) -> Callable[[Network], Latency]:
        return methods.meter(job.constrained.tables[device])

    def measured_on(architecture: Architecture, device: str) -> Latency:
        return meter(device)(store.extract(architecture))

    def show(record: Record, objective: Objective, latency: MeasuredLatency) -> None:
        verdict = "within" if latency.excess <= 0 else "over"
        unstable = " [yellow](unstable)[/]" if latency.unstable else ""
        drift = (
            f" (slowdown {latency.slowdown:.2f})"
            if abs(latency.slowdown - 1) > NOTABLE_SLOWDOWN
            else ""
        )
        measured = f"{format_milliseconds(latency.median_ms)}{drift}{unstable}"
        job.console.print(
            f"measured on {objective.device}: {measured}, {verdict} the limit of "
            f"{objective.limit:g} ms; "
            f"predicted {format_milliseconds(record.predicted[objective.name])}; "
            f"accuracy {record.accuracy or 0:.1%}",
            highlight=False,
        )

    if job.constrained.measured:
        with seconds:
            measure_front(study, job.constrained, measured_on, stop=job.stop, on_measured=show)
