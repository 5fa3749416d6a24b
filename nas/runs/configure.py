"""From what a user asks for to the configuration of a run.

The command line and `nas.search` both come through here, so that the same words mean the same run.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from nas.data import BUILT_IN, DIGITS, Data, OwnDataset, load_data
from nas.export.pretrained import Pretrained, read_pretrained
from nas.latency.conditions import LatencyConditions
from nas.latency.runtimes import check_runtime
from nas.latency.table import LatencyTable
from nas.objectives.limits import parse_limits
from nas.objectives.objective import MACS
from nas.runs.config import (
    BATCH,
    BATCH_LR,
    DEFAULT,
    DEFAULT_EPOCHS,
    FIRST_RUNG,
    MOST_ON_CPU,
    QUICK,
    SMALL_BATCH,
    SMALL_SIZE,
    RunConfig,
    default_steps,
    limit_fields,
)
from nas.runs.memory import check_run
from nas.runs.reuse import TrainedSupernet
from nas.runs.run import Run
from nas.search.samplers import AUTO, BEST
from nas.search.settings import DEFAULT_TRYOUT, FEWEST_FINALISTS
from nas.training.distillation import check_places
from nas.training.given_teacher import GivenTeacher, given_teacher, named
from nas.training.strategies import DEFAULT_STRATEGY
from nas.utilities.devices import (
    check_device,
    chip_name,
    devices_here,
    usable_cpus,
)
from nas.utilities.errors import InputError
from nas.utilities.units import parse_latency
from search_space import PRESETS, ArchitectureError, SearchSpace, total_cost
from search_space.architecture import first_error
from search_space.extremes import extreme

MOST_WORKERS = 8
"""Evaluations at a time where the user asks for no number."""

LatencyLimits = str | Sequence[str] | Mapping[str, str]
"""Limits on latency: `15ms` on the run's device, `cuda=2ms`, several of those, or by device."""


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A run that can begin.

    Attributes:
        config: What its results depend on.
        data: To train and evaluate on.
        tables: Latency tables that were given, by device.
        init: What the supernet begins with; None if all its weights are drawn.
        teacher: Which the user gave, if there is one.
        supernet: Which was trained by another run; None if the run trains its own.
    """

    config: RunConfig
    data: Data
    tables: Mapping[str, LatencyTable]
    init: Pretrained | None = None
    teacher: GivenTeacher | None = None
    supernet: TrainedSupernet | None = None


def configure(*, supernet: Run | str | Path | None = None, **asked: Any) -> Configured:
    """Check what was asked, fill in what was not, and open the data.

    Args:
        supernet: A run, or its folder, whose trained supernet is searched; None trains one. What
            that was trained with and on is then what is not asked for, and nothing else will do.
        asked: As `configure_training` takes it; what is None or False is not asked for.

    Raises:
        InputError: If something of it is wrong, absent or contradicts something else.
    """
    given = {
        name: value for name, value in asked.items() if value is not None and value is not False
    }
    if supernet is None:
        return configure_training(**given)
    trained = TrainedSupernet.of(supernet)
    configured = configure_training(**trained.asked(given))
    config = trained.configured(configured.config, given)
    return replace(configured, config=config, init=None, supernet=trained)


def configure_training(
    *,
    latency: LatencyLimits = (),
    latency_table: Sequence[str | Path] = (),
    latency_batch: int = 1,
    latency_dtype: str = "float32",
    runtime: str = "eager",
    data: str | Path | OwnDataset = DIGITS,
    space: str | SearchSpace = "base",
    init: str | Path | None = None,
    teacher: str | None = None,
    token_labels: bool = False,
    image_size: int = 224,
    proxy_size: int | None = None,
    quick: bool = False,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    trials: int | None = None,
    search_images: int | None = None,
    short_list: int | None = None,
    finalists: int | None = None,
    sampler: str = AUTO,
    strategy: str = DEFAULT_STRATEGY.name,
    seed: int = 0,
    device: str | None = None,
    threads: int = 1,
    **limits: str | float | None,
) -> Configured:
    """What `configure` gives for a run that trains its supernet.

    Args:
        latency: Limits on the latency of one forward pass.
        latency_table: Files of latency tables; each is of one of the devices with a limit.
        latency_batch: Images in the pass that is timed.
        latency_dtype: Of the network that is timed.
        runtime: What runs the network that is timed.
        data: A name or a folder that `load_data` knows, or the user's own datasets.
        space: A preset's name, a JSON file, or a space.
        init: An export, or an authors' checkpoint, of a member of the space, whose weights the
            supernet begins with; or what timm gets, as `local-dir:FOLDER`.
        teacher: A classifier of timm that teaches subnets and the short list, as
            `nas.training.given_teacher` reads it.
        token_labels: Let it teach each place of the last map, too.
        image_size: Pixels at which MACs and latency count.
        proxy_size: Pixels of training and evaluation; 64 for `digits` and where there is no GPU,
            else the image size.
        quick: Shrink everything to a look.
        steps: Training steps of the supernet; by default those of ten minutes on two CPU cores or,
            where 50 passes over other data than `digits` are more, those of 50 passes, on CPUs at
            most of an hour.
        epochs: The same, in passes over the train split.
        batch_size: Images in a step; 16 for `digits` and where there is no GPU, else 64.
        lr: Peak learning rate; by default 6e-4 for batches of 64, and in proportion to the root of
            others.
        trials: Architectures to evaluate.
        search_images: Images of the search split that each is evaluated on.
        short_list: Architectures that are tried by training them alone; 0 for none.
        finalists: So many of them, those first, are trained from fresh weights, too; 0 for none,
            which is the default of short runs and of those with `init`.
        sampler: One of `nas.search.samplers.SAMPLERS`, or `AUTO` for that which measures best.
        strategy: One of `nas.training.strategies.STRATEGIES`.
        seed: Of everything random.
        device: `cpu`, `cuda` or `cuda:N`; `cuda` where there is one.
        threads: CPU threads of one evaluation.
        limits: On closed-form objectives, by their fields: `budget="2GFLOPs"`, `memory="64MB"`.

    Raises:
        InputError: If something of it is wrong, absent or contradicts something else.
    """
    limited = parse_limits(limits)
    if steps is not None and epochs is not None:
        raise InputError("`steps` and `epochs` say the same thing; give one of them")
    searched = space if isinstance(space, SearchSpace) else space_named(space)
    pretrained = member_of(searched, init) if init is not None else None
    device = check_device(device) if device is not None else default_device()
    conditions = {"batch_size": latency_batch, "dtype": latency_dtype, "runtime": runtime}
    limits_ms = latency_limits(latency, device)
    tables = given_tables(latency_table, limits_ms, searched, image_size, conditions)
    check_timed_devices(limits_ms, tables, searched, image_size, conditions)

    embedded, on_gpu = data == DIGITS, device.startswith("cuda")
    small = embedded or not on_gpu
    if batch_size is None:
        batch_size = SMALL_BATCH if small else BATCH
    if proxy_size is None:
        proxy_size = SMALL_SIZE if small else image_size
    sizes = {"image_size": (image_size, 32), "proxy_size": (proxy_size, 32)}
    for field, (value, least) in {**sizes, "batch_size": (batch_size, 1)}.items():
        if value < least:
            raise InputError(f"`{field}` {value} is below {least}")
    if not isinstance(data, str | Path | OwnDataset):
        raise InputError(
            f"`data` is of type {type(data).__name__}; give a name, a folder or a nas.OwnDataset"
        )
    source = data if isinstance(data, OwnDataset) else str(data)
    loaded = load_data(source, image_size=proxy_size, seed=seed)
    given = given_teacher(teacher, loaded, token_labels=token_labels)
    if token_labels:
        for layout in searched.layout:
            member = searched.decode({**searched.scaled_genotype(0.0), "layout": layout})
            check_places(member, proxy_size)
    effort = QUICK if quick else DEFAULT
    per_epoch = loaded.epoch_size / batch_size
    if epochs is not None:
        steps = max(1, round(epochs * per_epoch))
    if steps is None and quick:
        steps = effort.steps
    if steps is None:
        largest = extreme(searched, lambda cost: -cost.macs, image_size=image_size)
        most = total_cost(largest, image_size=image_size).macs
        least = default_steps(
            min(most, limited.get(MACS.name, most)),
            image_size=image_size,
            proxy_size=proxy_size,
            batch_size=batch_size,
        )
        passes = 0 if embedded else round(DEFAULT_EPOCHS * per_epoch)
        steps = max(least, passes if on_gpu else min(passes, MOST_ON_CPU * least))
    if lr is None:
        lr = BATCH_LR * math.sqrt(batch_size / BATCH)
    trials = effort.trials if trials is None else trials
    if short_list is None:
        short_list = min(effort.short_list, trials)
    if short_list > trials:
        raise InputError(f"`short_list` {short_list} is longer than what is evaluated: {trials}")
    if finalists is None:
        # A final takes half of a run's training at most: the rungs have as many steps as the
        # supernet. What begins with pretrained weights is not made to be trained from fresh ones.
        room = 2 * steps // DEFAULT_TRYOUT.final_steps
        compared = short_list > 1 and room >= FEWEST_FINALISTS and pretrained is None
        finalists = min(room, short_list) if compared else 0
    if finalists == 1:
        raise InputError("`finalists` 1: nobody would be compared with it; give 0, or 2 or more")
    if finalists > short_list:
        raise InputError(f"`finalists` {finalists} are more than the short list has: {short_list}")
    config = checked_config(
        **limit_fields(limited),
        latency_ms=limits_ms,
        latency_tables={name: table.digest for name, table in tables.items()},
        latency_batch=latency_batch,
        latency_dtype=latency_dtype,
        runtime=runtime,
        data=data_identity(source),
        space=searched,
        init=pretrained.digest if pretrained else None,
        image_size=image_size,
        proxy_size=proxy_size,
        seed=seed,
        device=device,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        sampler=BEST if sampler == AUTO else sampler,
        strategy=strategy,
        trials=trials,
        short_list=short_list,
        finalists=finalists,
        tryout={
            "first_rung": max(1, round(FIRST_RUNG * steps)),
            "lr": DEFAULT_TRYOUT.lr * math.sqrt(batch_size / BATCH),
        },
        search_images=effort.search_images if search_images is None else search_images,
        threads=threads,
        **named(given),
    )
    check_run(config, loaded)
    return Configured(config=config, data=loaded, tables=tables, init=pretrained, teacher=given)


def checked_config(**fields: Any) -> RunConfig:
    """A configuration of these fields.

    Raises:
        InputError: If one of them is illegal; it is named.
    """
    try:
        return RunConfig(**fields)
    except ValidationError as error:
        raise illegal_field(error) from None


def checked_conditions(**fields: Any) -> LatencyConditions:
    """What networks are timed under.

    Raises:
        InputError: If a field is illegal; it is named.
    """
    try:
        return LatencyConditions(**fields)
    except ValidationError as error:
        raise illegal_field(error) from None


def illegal_field(error: ValidationError) -> InputError:
    """What a user is told of a field that is illegal, or of fields that don't go together."""
    told = first_error(error)
    if not error.errors(include_url=False)[0]["loc"]:
        return InputError(told)
    field, _, message = told.partition(": ")
    return InputError(f"`{field}` {message}")


def space_named(name: str) -> SearchSpace:
    """The preset of that name, or the space of a JSON file.

    Raises:
        InputError: If there is neither.
    """
    if name in PRESETS:
        return PRESETS[name]
    if Path(name).suffix == ".json":
        try:
            return SearchSpace.load(name)
        except ArchitectureError as error:
            raise InputError(f"`space` {error}") from None
    raise InputError(f"`space` {name!r} is unknown; {', '.join(PRESETS)}, or a JSON file")


def member_of(space: SearchSpace, path: str | Path) -> Pretrained:
    """The network of an export or a checkpoint, which is a member of a space.

    Raises:
        InputError: If it cannot be read, or is none.
    """
    try:
        pretrained = read_pretrained(path)
        space.genotype(pretrained.network.architecture)
    except InputError as error:
        raise InputError(f"`init` {error}") from None
    except ArchitectureError as error:
        raise InputError(
            f"`init` {path}: {pretrained.name} is no member of the space: {error}"
        ) from None
    if pretrained.network.in_chans != 3:
        raise InputError(
            f"`init` {path}: takes images of {pretrained.network.in_chans} channels; legal: 3"
        )
    return pretrained


def default_device() -> str:
    """Where networks run unless asked otherwise."""
    return "cuda" if torch.cuda.device_count() else "cpu"


def default_workers(config: RunConfig) -> int:
    """How many actors evaluate unless asked otherwise: one for each GPU or each CPU.

    None where one GPU of several is named.
    """
    if config.device != "cpu":
        return torch.cuda.device_count() if config.device == "cuda" else 0
    return max(1, min(usable_cpus() // config.threads, MOST_WORKERS))


def check_train_workers(count: int, config: RunConfig, *, on_this_machine: bool) -> None:
    """See that so many processes can train together.

    Raises:
        InputError: If the batch does not divide among them, or this machine has too few devices.
    """
    if count < 1:
        raise InputError(f"`train_workers` {count} is less than 1")
    if config.batch_size % count:
        raise InputError(
            f"`train_workers` {count}: a batch of {config.batch_size} images does not divide by it"
        )
    on_gpu = config.device.startswith("cuda")
    there = torch.cuda.device_count() if on_gpu else usable_cpus()
    if on_this_machine and count > 1 and count > there:
        raise InputError(
            f"`train_workers` {count}: this machine has {there} {'GPUs' if on_gpu else 'CPUs'}"
        )


def check_device_of_workers(device: str, **counts: int) -> None:
    """See that Ray may choose the GPU of each worker, where there are workers.

    Args:
        device: Where they work.
        **counts: How many of them, by the flag that says it.

    Raises:
        InputError: If one GPU of several is named.
    """
    for field, number in counts.items():
        if number and device not in ("cpu", "cuda"):
            raise InputError(
                f"`device` {device} with `{field}` {number}: Ray gives each worker its GPU; "
                "give cuda"
            )


def default_loader_workers(data: str) -> int:
    """How many processes load images unless asked otherwise: none for `digits`, which are drawn."""
    return 0 if data == DIGITS else min(usable_cpus(), 8)


def data_identity(source: str | OwnDataset) -> str:
    """What a configuration keeps of the data: a name, a folder's absolute path, or a digest.

    Raises:
        InputError: If the source names nothing.
    """
    if isinstance(source, OwnDataset):
        return source.identity
    if not source.strip():
        raise InputError("`data` '' names nothing; give digits, a folder or a timm dataset")
    folder = Path(source).expanduser()
    is_name = source in BUILT_IN or not folder.is_dir()
    return source if is_name else str(folder.resolve())


def default_folder(config: RunConfig) -> Path:
    """Where a run goes unless asked otherwise."""
    data = Path(config.data.partition(" (")[0]).name.replace("/", "-").replace(" ", "-")
    budget = f"{(config.budget or 0) / 1e9:g}GFLOPs"
    return Path("results") / f"{data}-{config.space.name}-{budget}-{config.digest}"


def named_folder(name: str) -> Path:
    """Where a run of that name goes.

    Raises:
        InputError: If no folder can have the name.
    """
    if not re.fullmatch(r"\w[\w .+-]{0,99}", name):
        raise InputError(
            f"`name` {name!r} is no name for a folder: up to 100 letters, digits, spaces and . + - "
            "_, a letter or digit first; a folder elsewhere is given as `out`"
        )
    return Path("results") / name


def latency_limits(asked: LatencyLimits, default_device: str) -> dict[str, float]:
    """Limits in milliseconds by device.

    Raises:
        InputError: If one cannot be read, or a device has two.
    """
    if isinstance(asked, Mapping):
        asked = [f"{device}={time}" for device, time in asked.items()]
    if isinstance(asked, float | int):
        raise InputError(f"`latency` {asked} has no unit; give a text such as {asked}ms")
    limits: dict[str, float] = {}
    for text in [asked] if isinstance(asked, str) else asked:
        device, equals, time = text.rpartition("=")
        device = device.strip() if equals else default_device
        if not re.fullmatch(r"\w[\w:.-]*", device):
            raise InputError(f"`latency` {text!r}: {device!r} is no name of a device")
        if device in limits:
            raise InputError(f"`latency` {text!r}: one limit for each device, such as cuda=2ms")
        limits[device] = parse_latency(time)
    return limits


def given_tables(
    files: Sequence[str | Path],
    limits_ms: Mapping[str, float],
    space: SearchSpace,
    image_size: int,
    conditions: Mapping[str, Any],
) -> dict[str, LatencyTable]:
    """The latency tables of files, by device.

    Raises:
        InputError: If one cannot be read, is of a device without a limit, or was taken otherwise
            than the run asks for.
    """
    tables: dict[str, LatencyTable] = {}
    for file in files:
        table = LatencyTable.load(file)
        device = table.conditions.device
        if device not in limits_ms:
            limited = ", ".join(limits_ms) or "none"
            raise InputError(
                f"{file}: a table of {device!r}, which has no `latency` ({limited} has)"
            )
        if device in tables:
            raise InputError(f"{file}: a second table of {device!r}")
        check_taken_so(table, file, image_size=image_size, **conditions)
        table.check_covers(space, str(file))
        tables[device] = table
    return tables


def check_taken_so(
    table: LatencyTable,
    file: str | Path,
    *,
    image_size: int,
    batch_size: int,
    dtype: str,
    runtime: str,
) -> None:
    """Check that a table was taken as a run asks for, and on this machine's device if it has one.

    Raises:
        InputError: If not; it names the file.
    """
    device = table.conditions.device
    asked: dict[str, Any] = {"image_size": image_size, "batch_size": batch_size}
    if device in devices_here():  # what is elsewhere runs as its table says
        asked |= {"dtype": dtype, "runtime": runtime, "chip": chip_name(device)}
    for field, value in asked.items():
        if (there := getattr(table.conditions, field)) != value:
            raise InputError(
                f"{file}: taken with {field} {there!r}, but the run asks for {value!r}"
            )


def check_timed_devices(
    limits_ms: Mapping[str, float],
    tables: Mapping[str, LatencyTable],
    space: SearchSpace,
    image_size: int,
    conditions: Mapping[str, Any],
) -> None:
    """Check that each device with a limit on latency can time a space, or has a table.

    Raises:
        InputError: If not.
    """
    for device in limits_ms:
        if device in devices_here():
            timed = checked_conditions(
                device=device, image_size=image_size, threads=1, **conditions
            )
            timed.check_room(space.scaled(1.0))
            check_runtime(timed)
        elif device not in tables:
            raise InputError(
                f"`latency` {device}=...: {device!r} is not here ({', '.join(devices_here())} is), "
                "so it needs a `latency_table`"
            )
