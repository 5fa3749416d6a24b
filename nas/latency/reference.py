"""The reference network of a device: what is timed counts relative to it.

A machine's speed drifts by a tenth within minutes, and by more where others share it. A latency
table keeps what its reference network took, so that a network measured in another hour is told at
the speed that the table was measured at, and the drift beside it.
"""

import statistics
from collections.abc import Callable
from dataclasses import replace

import torch

from nas.latency.conditions import LatencyConditions
from nas.latency.measure import Latency, from_times, measure_latency, seconds_of, steadiest
from nas.latency.runtimes import prepare
from nas.latency.table import LatencyTable
from nas.utilities.devices import threads
from search_space import Architecture
from supernet import Network
from supernet.network import skeleton

WARM_UP_PASSES = 2
ROUND_PASSES = 15
"""Timed forward passes of a network in each round, as many of the reference beside them."""
FIRST_PASSES = 25
"""Forward passes of the reference at first."""


class ReferenceMeter:
    """Times networks at one speed of a device, as a reference network shows it.

    Args:
        reference: The reference network.
        conditions: Under which networks are timed, and the reference too, but that it is never
            compiled.
        milliseconds: What the reference takes at the speed to tell times at; by default what it
            takes now.

    Attributes:
        passes: Milliseconds of every pass of the reference so far.

    Raises:
        InputError: If the runtime cannot run the reference.
    """

    def __init__(
        self,
        reference: Architecture,
        conditions: LatencyConditions,
        milliseconds: float | None = None,
    ) -> None:
        self.reference, self.conditions = reference, conditions
        self.passes: list[float] = []
        # Torch forgets what it compiled when it compiles another network.
        runtime = "eager" if conditions.runtime == "compile" else conditions.runtime
        beside = conditions.model_copy(update={"runtime": runtime})
        with threads(conditions.threads):
            self._run = prepare(blank_network(reference, beside), beside)
        for _ in range(WARM_UP_PASSES):
            self._pass(self._run)
        first = statistics.median(self._reference_pass() for _ in range(FIRST_PASSES))
        self.milliseconds = first if milliseconds is None else milliseconds

    def correction(self) -> float:
        """Time the reference once: how much faster the device is by rights than it is now."""
        return self.milliseconds / self._reference_pass()

    def measure(self, network: Network) -> Latency:
        """Latency of a network at the speed that times are told at.

        Raises:
            InputError: If the runtime cannot run the network.
        """
        with threads(self.conditions.threads):
            run = prepare(network, self.conditions)
        for _ in range(WARM_UP_PASSES):
            self._pass(run)

        def time_round() -> Latency:
            pairs = [(self._pass(run), self.correction()) for _ in range(ROUND_PASSES)]
            latency = from_times([milliseconds * correction for milliseconds, correction in pairs])
            return replace(latency, slowdown=1 / statistics.median(c for _, c in pairs))

        return replace(steadiest(time_round), conditions=self.conditions)

    def settle(self) -> float:
        """Tell times from now on at the median speed of all passes of the reference so far.

        Returns:
            The factor for what was told before.
        """
        before, self.milliseconds = self.milliseconds, statistics.median(self.passes)
        return self.milliseconds / before

    def _reference_pass(self) -> float:
        self.passes.append(self._pass(self._run))
        return self.passes[-1]

    def _pass(self, run: Callable[[], object]) -> float:
        """Milliseconds of one call."""
        with threads(self.conditions.threads):
            return 1e3 * seconds_of(run, torch.device(self.conditions.device))


def latency_meter(table: LatencyTable) -> Callable[[Network], Latency]:
    """What measures networks under a table's conditions, at its speed if it has a reference.

    Raises:
        InputError: If the runtime cannot run the reference.
    """
    if table.reference is None:
        return lambda network: measure_latency(network, table.conditions)
    reference = table.reference
    return ReferenceMeter(reference.architecture, table.conditions, reference.milliseconds).measure


def blank_network(architecture: Architecture, conditions: LatencyConditions) -> Network:
    """A network to be timed: small weights, since a latency doesn't depend on them.

    Drawn by the network's own rules they would take longer than the timing.
    """
    network = skeleton(architecture, num_classes=1000).to_empty(device=conditions.device)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(0.01)  # no denormal numbers, no variance of zero
    return network.to(dtype=getattr(torch, conditions.dtype)).eval()
