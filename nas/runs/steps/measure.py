"""The third step of a run: measuring the latency of what may be chosen."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from nas.latency.measure import Latency
from nas.objectives.objective import Objective
from nas.report.run_summary import NOTABLE_SLOWDOWN
from nas.runs.job import Job
from nas.runs.latency_tables import LatencyMethods
from nas.runs.steps.tryout import listed
from nas.search.front import pareto_front
from nas.search.measuring import measure_chosen
from nas.search.study import load_study, settle
from nas.search.trials import MeasuredLatency, Record, trials_table
from nas.utilities.units import format_milliseconds
from search_space import Architecture
from supernet import Network, Store


def measure(job: Job, store: Store, methods: LatencyMethods) -> None:
    """Measure the short list, where latency is limited; without one the front, which is exported.

    So, too, where all that was on it has failed when it was trained.

    Nothing else of the run is at work meanwhile.
    """
    study = load_study(job.folder.journal)
    seconds = job.clock.measuring("measuring_seconds")

    @cache
    def meter(device: str) -> Callable[[Network], Latency]:
        return methods.meter(job.constrained.tables[device])

    def measured_on(architecture: Architecture, device: str) -> Latency:
        return meter(device)(store.extract(architecture))

    def choose(known: Mapping[int, Record]) -> Iterable[Record]:
        if job.config.short_list:
            candidates = listed(job, known)
            tried = [record.tried for record in candidates]
            if any(one is None or one.accuracy is not None for one in tried):
                return candidates
        objectives = job.constrained.objectives
        front = pareto_front(trials_table(known, objectives), objectives)
        return [known[number] for number in front["number"]]

    def show(record: Record, objective: Objective, latency: MeasuredLatency) -> None:
        verdict = "within" if latency.excess <= 0 else "over"
        unstable = " (unstable)" if latency.unstable else ""
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
        )

    if job.constrained.measured:
        with seconds:
            measure_chosen(
                study,
                job.constrained,
                measured_on,
                choose=choose,
                stop=job.stop,
                on_measured=show,
            )
        settle(job.folder.journal)
