"""Hard limits on what an architecture may cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.utilities.units import latency_name
from search_space import Cost


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits; None does not limit.

    Attributes:
        macs: Multiply-adds for one image at the image size that costs are counted at.
        params: Parameters.
        latency_ms: Milliseconds for one forward pass, by device.
    """

    macs: int | None = None
    params: int | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)

    def by_name(self) -> dict[str, float]:
        """Every limit there is: `macs`, `params`, and `latency_DEVICE_ms` for each device."""
        given = {"macs": self.macs, "params": self.params}
        return {name: limit for name, limit in given.items() if limit is not None} | {
            latency_name(device): limit for device, limit in self.latency_ms.items()
        }

    def excess(self, cost: Cost, latency_ms: Mapping[str, float]) -> dict[str, float]:
        """By how much each limit is exceeded, relative to it; negative where there is room.

        Args:
            cost: Of an architecture.
            latency_ms: Its latency on each device that has a limit.
        """
        values = {"macs": cost.macs, "params": cost.params} | {
            latency_name(device): value for device, value in latency_ms.items()
        }
        return {name: values[name] / limit - 1 for name, limit in self.by_name().items()}
