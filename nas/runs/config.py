"""The configuration of a run: everything that its results depend on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from nas.latency.conditions import DtypeName, RuntimeName
from nas.objectives.limits import Limits
from nas.objectives.objective import CLOSED_FORM, MACS, MEMORY, PARAMS, latency_name
from nas.objectives.settings import DEFAULT_DRAWS, DrawSettings
from nas.search.samplers import BEST, SAMPLERS
from nas.search.settings import (
    DEFAULT_SEARCH,
    DEFAULT_TRYOUT,
    SearchSettings,
    TryoutSettings,
)
from nas.training.settings import SupernetTraining
from nas.utilities.bounds import Batch, Positive, PositiveCount, Processes, ShortList, Trials
from search_space import SearchSpace
from search_space.bounds import Pixels


def _known_sampler(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"{name!r} is none of {', '.join(SAMPLERS)}")
    return name


SamplerName = Annotated[str, AfterValidator(_known_sampler)]

OWN_FIELDS = {objective.name: objective.field for objective in (MACS, PARAMS, MEMORY)}
"""The fields of `RunConfig` that hold limits on closed-form objectives, by the objective's name."""


def _added_objectives(limits: dict[str, Positive]) -> dict[str, Positive]:
    for name in limits:
        if name not in CLOSED_FORM or name in OWN_FIELDS:
            raise ValueError(f"{name!r} is no objective that was added to CLOSED_FORM")
    return limits


AddedLimits = Annotated[dict[str, Positive], AfterValidator(_added_objectives)]


EXTENDABLE = ("trials", "short_list", "finalists")
"""The fields of `RunConfig` that may grow in a run that exists: it then goes on, in its folder. So
they don't tell runs apart."""


class RunConfig(SupernetTraining):
    """What a run's results depend on, and nothing else.

    How the work is spread (workers, cluster, loader processes) is not here: the same configuration
    gives the same results anywhere, and may be resumed with other workers.

    How the supernet is trained (`steps`, `batch_size`, `lr`, `seed`, `strategy` and the optimizer's
    numbers) is inherited; beside that a run has

    Attributes:
        budget: Limit on multiply-adds for one image at `image_size`.
        params: Limit on parameters.
        memory: Limit on peak activation memory in bytes, at `image_size`.
        added_limits: Limits on objectives that were added to `CLOSED_FORM`, by name.
        latency_ms: Limit on the latency of one forward pass, by device.
        latency_tables: Digest of the table that was given for a device; others are measured.
        latency_batch: Images in the forward pass that is timed.
        latency_dtype: Of weights and images of the network that is timed.
        runtime: What runs the network that is timed.
        data: Where images come from: a name, or a folder's absolute path.
        space: The search space.
        init: Digest of the network whose weights the supernet begins with; None if all are drawn.
        supernet: Digest of the weights that another run has trained; None if they are its own.
        image_size: Side in pixels at which MACs and latency are counted.
        proxy_size: Side in pixels of training and evaluation.
        device: Where networks are trained, evaluated and timed.
        sampler: One of `nas.search.samplers.SAMPLERS`.
        trials: Architectures to evaluate.
        search_images: Images of the search split that each is evaluated on.
        threads: CPU threads of one evaluation; scores may depend on it in the last digit.
        short_list: Architectures that are tried by training them alone before one is chosen; 0 for
            none.
        finalists: So many that stand first of these are then trained from fresh weights, too; 0 for
            none.
        tryout: How they are trained.
        search: When the driver of the search steps in, and when it gives up.
        draws: How far a look for an architecture within the limits goes.
    """

    budget: PositiveCount | None
    params: PositiveCount | None = None
    memory: PositiveCount | None = None
    added_limits: AddedLimits = Field(default_factory=dict)
    latency_ms: dict[str, Positive] = Field(default_factory=dict)
    latency_tables: dict[str, str] = Field(default_factory=dict)
    latency_batch: Batch = 1
    latency_dtype: DtypeName = "float32"
    runtime: RuntimeName = "eager"
    data: str = "digits"
    space: SearchSpace
    init: str | None = None
    supernet: str | None = None
    image_size: Pixels = 224
    proxy_size: Pixels = 64
    device: str = "cpu"
    sampler: SamplerName = BEST
    trials: Trials
    search_images: PositiveCount
    threads: Processes = 1
    short_list: ShortList = 0
    finalists: ShortList = 0
    tryout: TryoutSettings = DEFAULT_TRYOUT
    search: SearchSettings = DEFAULT_SEARCH
    draws: DrawSettings = DEFAULT_DRAWS

    @property
    def limits(self) -> Limits:
        """The hard limits."""
        own = {name: getattr(self, field) for name, field in OWN_FIELDS.items()}
        latencies = {latency_name(device): limit for device, limit in self.latency_ms.items()}
        return Limits(**own, **self.added_limits, **latencies)

    @property
    def data_folder(self) -> Path | None:
        """The folder that images come from; None where the data have another name."""
        path = Path(self.data)
        return path if path.is_absolute() else None

    @property
    def digest(self) -> str:
        """Six hex digits that tell configurations apart in folder names.

        Of a folder of images its own name counts, and not where it lies; what is `EXTENDABLE` does
        not count.
        """
        fields = self.model_dump(mode="json", exclude=set(EXTENDABLE))
        if self.data_folder:
            fields["data"] = self.data_folder.name
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:6]


def limit_fields(limits: Mapping[str, float]) -> dict[str, Any]:
    """The fields of `RunConfig` that say so, of limits on closed-form objectives by their names."""
    own = {OWN_FIELDS[name]: limit for name, limit in limits.items() if name in OWN_FIELDS}
    added = {name: limit for name, limit in limits.items() if name not in OWN_FIELDS}
    return {**own, "added_limits": added}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much work a run does where the user doesn't say.

    Attributes:
        steps: Training steps of the supernet.
        trials: Architectures to evaluate.
        search_images: Images of the search split that each is evaluated on, at most.
        short_list: Architectures that are tried by training them alone.
    """

    steps: int
    trials: int
    search_images: int
    short_list: int


DEFAULT = Effort(steps=900, trials=80, search_images=600, short_list=10)
"""Ten minutes on two CPU cores with the embedded data; the steps are those of `base` under two
billion multiply-adds, and others where a step is cheaper (`default_steps`). Cores that don't
multiply bfloat16 themselves take twice as long for the same result."""

QUICK = Effort(steps=120, trials=10, search_images=200, short_list=3)
"""A look at how everything works, in two to four minutes on two CPU cores."""

SMALL_SIZE = 64
"""Pixels at which networks are trained and compared with the embedded data, and on CPUs."""

SMALL_BATCH, BATCH = 16, 64
"""Images in a step with the embedded data and on CPUs, and elsewhere.

Before anything is learned, it is steps that count and not images: with the same number of images
the subnets of `tiny` inherit 52 % in batches of 16 and 28 % in batches of 32 (docs/research.md).
Whoever has many images has many steps."""

BATCH_LR = 6e-4
"""Peak learning rate of the supernet in batches of `BATCH`; others have it times the root of their
share of that (Malladi et al., 2022, arXiv 2205.10287, whose rule is for Adam)."""

DEFAULT_EPOCHS = 50
"""Passes over the train split of data that are not embedded, where they are more steps than the
default has."""

MOST_ON_CPU = 6
"""Times as many steps as the default has where there is no GPU: an hour's on two cores."""

FIRST_RUNG = 1 / 30
"""Of the supernet's steps, so many has the first rung of the tryout: with the default list and
settings all rungs together have as many as the supernet."""

_OVERHEAD = 2.2e9
"""Multiply-adds that take as long as what a step costs beside them, as measured on two cores."""


def default_steps(macs: float, *, image_size: int, proxy_size: int, batch_size: int) -> int:
    """Training steps of the embedded data that take about as long on any space and budget.

    Args:
        macs: Of one image at `image_size` in the largest subnet that may be trained.
        image_size: Side in pixels at which they are counted.
        proxy_size: Side in pixels of training.
        batch_size: Images in a step.
    """
    work = _work(macs, (proxy_size / image_size) ** 2 * batch_size)
    default = _work(2e9, (64 / 224) ** 2 * SMALL_BATCH)
    return max(1, round(DEFAULT.steps * (default + _OVERHEAD) / (work + _OVERHEAD)))


def _work(macs: float, images: float) -> float:
    """Multiply-adds of a step: a pass forward, and one backward of twice that."""
    return 3 * macs * images
