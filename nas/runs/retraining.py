"""Retraining: exported architectures trained alone, then measured on the test split."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nas.data import Augment, Data, OwnDataset, hold_out, load_data, materialise
from nas.export.network import exported_front
from nas.report.run_summary import chance_text
from nas.runs.config import BATCH, RunConfig
from nas.runs.configure import (
    check_device_of_workers,
    default_loader_workers,
    illegal_field,
)
from nas.runs.folder import RunFolder, logging_to
from nas.runs.job import Execution
from nas.runs.memory import check_training
from nas.runs.one_retraining import (
    ARGUMENTS,
    METRICS,
    Retrained,
    Retraining,
    RetrainingData,
    retrained_folders,
)
from nas.runs.ray_retraining import retrain_on_ray
from nas.runs.same_data import data_again, keep_data
from nas.training.accuracy import largest_class
from nas.training.alone import LARGEST_HELD_OUT, SCRATCH, SUPERNET, ClassWeights, Recipe
from nas.training.given_teacher import GivenTeacher, given_teacher, named
from nas.training.recipes import RECIPES, RecipeName
from nas.training.tensorboard import check_tensorboard_installed
from nas.utilities.bounds import MOST_PROCESSES
from nas.utilities.commands import typed
from nas.utilities.devices import check_device, usable_cpus
from nas.utilities.errors import InputError
from nas.utilities.interrupt import StopRequest, stop_on_signals
from nas.utilities.progress import LiveLine
from nas.utilities.ray_cluster import Demand, RayCluster
from nas.utilities.units import format_accuracy, parse_duration

_IMAGES = 2
"""Times as many images as the supernet saw, where the user asks for no number of steps."""


def retrain_run(
    folder: RunFolder,
    *,
    top: int,
    name: str,
    start: str,
    recipe: RecipeName | None,
    steps: int | None,
    epochs: int | None,
    batch_size: int | None,
    lr: float | Sequence[float] | None,
    drop_path: float | None,
    augment: Augment | None,
    train_size: int | None,
    ema: float,
    layer_decay: float,
    validate: float,
    class_weights: ClassWeights,
    accumulate: int,
    tensorboard: bool,
    teacher: str | None,
    token_labels: bool,
    seed: int,
    device: str | None,
    workers: int,
    ray_address: str | None,
    ray_wait: str,
    loader_workers: int | None,
    data: str | Path | OwnDataset | None,
    console: Console,
) -> list[Retrained]:
    """Retrain as a user asks for it; what is not asked for is as in the run.

    `nas.retrain` says what the arguments mean.

    Raises:
        InputError: If something of it is wrong, or the run has exported nothing yet.
        Interrupted: After Ctrl-C, SIGTERM or SIGHUP, when everything was saved.
    """
    config = folder.config
    if steps is not None and epochs is not None:
        raise InputError("`steps` and `epochs` say the same thing; give one of them")
    if top < 1:
        raise InputError(f"`top` {top} is below 1")
    if not 0 <= validate <= LARGEST_HELD_OUT:
        raise InputError(f"`validate` {validate:g} is outside 0 to {LARGEST_HELD_OUT:g}")
    if tensorboard:
        check_tensorboard_installed()
    if recipe is None:
        recipe = "default" if start in (SCRATCH, SUPERNET) else "finetune"
    if recipe not in RECIPES:
        raise InputError(f"`recipe` {recipe!r} is none of {', '.join(RECIPES)}")
    published = RECIPES[recipe]
    if batch_size is None:
        batch_size = BATCH
    if lr is None:
        lr = published.rate(batch_size)
    rates = list(lr) if isinstance(lr, Sequence) and not isinstance(lr, str) else [lr]
    if not rates:
        raise InputError("`lr` names no learning rate")
    device = check_device(config.device if device is None else device)
    if train_size is None:
        train_size = config.proxy_size
    if steps is None and epochs is None:
        epochs = published.epochs
    if steps is None:
        steps = max(1, _IMAGES * config.steps * config.batch_size // max(1, batch_size))
    if drop_path is None:
        drop_path = published.drop_path
    if augment is None:
        augment = published.augment
    asked = [
        _checked_recipe(
            start=start,
            steps=steps,
            batch_size=batch_size,
            lr=rate,
            drop_path=drop_path,
            augment=augment,
            image_size=train_size,
            seed=seed,
            device=device,
            ema=ema,
            layer_decay=layer_decay,
            held_out=validate,
            class_weights=class_weights,
            accumulate=accumulate,
            **published.fields,
        )
        for rate in rates
    ]
    networks_to_train(folder, start)  # refuses what is not there, before the data are loaded
    folder.retrained(name)  # likewise a name that cannot be used
    execution = _execution(workers, ray_address, ray_wait, loader_workers, config, device)
    source = data_again(config, data)
    loaded = load_data(
        source,
        image_size=train_size,
        seed=config.seed,
        augment=augment,
    )
    given = given_teacher(teacher, loaded, token_labels=token_labels)
    check_training(
        config.space,
        images=len(loaded.test) + round(validate * len(loaded.train)),
        batch_size=math.ceil(batch_size / accumulate),
        image_size=train_size,
        device=device,
    )
    if workers:
        _cluster(execution, console).check([_demand(execution, config, device)])
    epoch = (1 - validate) * loaded.epoch_size / batch_size  # steps, with a fraction
    known: dict[str, Any] = dict(named(given))
    if epochs is not None:
        known["steps"] = max(1, round(epochs * epoch))
    if published.warmup_epochs is not None:
        known |= {"warmup_share": 0.5, "warmup_limit": round(published.warmup_epochs * epoch)}
    recipes = {
        name if len(asked) == 1 else f"{name}-lr{some.lr!r}": _checked_recipe(
            **some.model_dump() | known
        )
        for some in asked
    }
    with stop_on_signals() as stop:
        return retrain(
            folder,
            data=loaded,
            top=top,
            recipes=recipes,
            execution=execution,
            teacher=given,
            tensorboard=tensorboard,
            stop=stop,
            console=console,
        )


def _execution(
    workers: int,
    ray_address: str | None,
    ray_wait: str,
    loader_workers: int | None,
    config: RunConfig,
    device: str,
) -> Execution:
    """How the work is spread, as the user asks for it.

    Raises:
        InputError: If a number is out of bounds, Ray is named and not used, or a GPU is named where
            Ray gives each worker its own.
    """
    if loader_workers is None:
        loader_workers = math.ceil(default_loader_workers(config.data) / max(1, workers))
    for field, number in {"workers": workers, "loader_workers": loader_workers}.items():
        if not 0 <= number <= MOST_PROCESSES:
            raise InputError(f"`{field}` {number} is not between 0 and {MOST_PROCESSES}")
    if not workers and ray_address is not None:
        raise InputError("`ray_address` with `workers` 0: nothing would use Ray")
    check_device_of_workers(device, workers=workers)
    return Execution(
        workers=workers,
        ray_address=ray_address,
        ray_wait=parse_duration(ray_wait, "ray_wait"),
        loader_workers=loader_workers,
    )


def _checked_recipe(**fields: Any) -> Recipe:
    """A recipe of what a user asks for.

    Raises:
        InputError: With the first field that is illegal.
    """
    try:
        return Recipe(**fields)
    except ValidationError as error:
        told = str(illegal_field(error))
        for field, argument in ARGUMENTS.items():
            told = told.replace(f"`{field}`", f"`{argument}`")
        raise InputError(told) from None


def retrain(
    folder: RunFolder,
    *,
    data: Data,
    top: int,
    recipes: Mapping[str, Recipe],
    execution: Execution,
    teacher: GivenTeacher | None = None,
    tensorboard: bool = False,
    stop: StopRequest,
    console: Console,
) -> list[Retrained]:
    """Train the `top` best architectures of a run's front, and print a table of them.

    Each network leaves `<name>/<n>/` with its weights, model card, `metrics.json` and three tables:
    `curve.csv` of its training, `classes.csv` and `confusion.csv` of the test split. One that is
    done is not trained again. Where one fails, the others are trained all the same.

    Args:
        folder: The run's.
        data: To train and test on: what the run had, at the recipes' image size.
        top: How many architectures.
        recipes: How each is trained, by the folder in the run's for the results. They differ in
            their learning rates alone.
        execution: How many are trained at a time, and where; the results don't depend on it, but
            for rounding.
        teacher: That which the recipes name.
        tensorboard: Write the curves into `<name>/tensorboard/<n>/`, too, as they come.
        stop: Looked at after every step.
        console: Where progress and the table are shown.

    Raises:
        InputError: If the run has exported nothing yet, the device is absent, the data has other
            classes, or a folder holds the work of another recipe; when all others are trained, if a
            network's loss or class scores are not finite.
        Interrupted: If a stop was requested; the same command goes on.
    """
    recipe = next(iter(recipes.values()))
    check_device(recipe.device)
    exported = networks_to_train(folder, recipe.start)[:top]
    config = folder.config
    if len(exported) < top:
        where = exported[0].parent.name
        console.print(f"architectures in the {where}: only {len(exported)}", style="yellow")
    with ExitStack() as held:
        for name in recipes:
            held.enter_context(folder.locked_for_retraining(name))
        held.enter_context(logging_to(folder))
        for leak in keep_data(folder, data):
            console.print(leak, style="yellow")
        helpers = execution.loader_workers
        tested = materialise(data.test, limit=None, seed=config.seed, workers=helpers, stop=stop)
        validation = None
        if recipe.held_out:
            data, held_out = hold_out(data, recipe.held_out, seed=config.seed)
            validation = materialise(
                held_out, limit=None, seed=config.seed, workers=helpers, stop=stop
            )
        on = RetrainingData(
            data=data,
            teacher=teacher,
            validation=validation,
            tested=tested,
            objectives=config.limits.objectives,
            cost_size=config.image_size,
            loader_workers=helpers,
            tensorboard=tensorboard,
        )
        several = len(recipes) > 1
        jobs = [
            Retraining(
                title=f"front/{source.name} from {some.start}" + f", lr {some.lr:g}" * several,
                source=source,
                target=folder.retrained(name) / source.name,
                recipe=some,
                on=on,
            )
            for name, some in recipes.items()
            for source in exported
        ]
        results = _done(jobs, execution, config, stop, console)
    if len(jobs) == 1 and isinstance(results[0], InputError):
        raise results[0]
    console.print(_table(jobs, results))
    if any(isinstance(result, Retrained) for result in results):
        _redraw(folder, console)
    pairs = list(zip(jobs, results, strict=True))
    failed = [f"{job.title}: {error}" for job, error in pairs if isinstance(error, InputError)]
    if failed:
        told = "; ".join(failed)
        raise InputError(f"{len(failed)} of {len(jobs)} were not retrained: {told}")
    return [result for result in results if isinstance(result, Retrained)]


def _redraw(folder: RunFolder, console: Console) -> None:
    """Let the run's pages tell of what was retrained; where that cannot be, a line says so."""
    try:
        from nas.runs.drawing import draw

        draw(folder)
    except ImportError as error:
        again = typed("plot", folder.path)
        told = f"{error.name} is not installed here; where it is, do `{again}`"
        console.print(f"the report was not redrawn: {told}", style="yellow", soft_wrap=True)
    except (InputError, OSError) as error:
        console.print(f"the report was not redrawn: {error}", style="yellow", soft_wrap=True)
    else:
        console.print(f"report: {folder.path / 'report.html'}", soft_wrap=True)


def _done(
    jobs: Sequence[Retraining],
    execution: Execution,
    config: RunConfig,
    stop: StopRequest,
    console: Console,
) -> list[Retrained | InputError]:
    """What each retraining gives, or why it gives nothing; those that are done give it at once.

    Raises:
        InputError: If one cannot begin; before any does.
        Interrupted: If a stop was requested.
    """
    results: dict[int, Retrained | InputError] = {}
    for place, job in enumerate(jobs):
        if (known := job.known()) is not None:
            console.print(f"{job.title}: retrained already")
            results[place] = known
    left = [place for place in range(len(jobs)) if place not in results]

    def end(place: int, result: Retrained | InputError) -> None:
        results[place] = result
        if isinstance(result, InputError) and len(jobs) > 1:
            console.print(f"{jobs[place].title} failed: {result}", style="yellow")

    if execution.workers and left:
        demand = _demand(execution, config, jobs[0].recipe.device)
        _on_ray(jobs, left, demand, execution, stop, console, end)
    else:
        _in_turn(jobs, left, stop, console, end)
    return [results[place] for place in range(len(jobs))]


def _in_turn(
    jobs: Sequence[Retraining],
    left: Sequence[int],
    stop: StopRequest,
    console: Console,
    end: Callable[[int, Retrained | InputError], None],
) -> None:
    """Do those that are left in this process, one after the other."""
    for place in left:
        job = jobs[place]
        with LiveLine(console, job.title, total=job.recipe.steps) as line:

            def show(step: int, loss: float, line: LiveLine = line) -> None:
                line.update(step, f"loss {loss:.2f}")

            try:
                end(place, job.run(stop=stop, on_step=show))
            except InputError as error:
                end(place, error)


def _on_ray(
    jobs: Sequence[Retraining],
    left: Sequence[int],
    demand: Demand,
    execution: Execution,
    stop: StopRequest,
    console: Console,
    end: Callable[[int, Retrained | InputError], None],
) -> None:
    """Do those that are left in workers of Ray, several at a time."""
    todo = [jobs[place] for place in left]
    steps, ended = [0] * len(todo), 0
    total = sum(job.recipe.steps for job in todo)
    with (
        _cluster(execution, console) as cluster,
        LiveLine(console, f"{len(todo)} networks, {demand.count} at a time", total=total) as line,
    ):

        def show(place: int, step: int, told: str) -> None:
            steps[place] = step
            line.update(sum(steps), f"{todo[place].title}: {told} ({ended} of {len(todo)} ended)")

        def ended_with(place: int, result: Retrained | InputError) -> None:
            nonlocal ended
            ended += 1
            end(left[place], result)
            told = "failed" if isinstance(result, InputError) else f"{result.retrained:.1%}"
            show(place, todo[place].recipe.steps, told)

        retrain_on_ray(
            todo,
            demand=demand,
            stored_bytes=_stored_bytes(jobs[0].on),
            cluster=cluster,
            stop=stop,
            on_step=lambda place, step, loss: show(place, step, f"step {step}, loss {loss:.2f}"),
            on_end=ended_with,
        )


def _cluster(execution: Execution, console: Console) -> RayCluster:
    """The Ray that workers live in."""

    def tell(line: str) -> None:
        console.print(line, style="yellow", soft_wrap=True)

    return RayCluster(execution.ray_address, wait_seconds=execution.ray_wait, tell=tell)


def _demand(execution: Execution, config: RunConfig, device: str) -> Demand:
    """What is asked of Ray: on this machine its CPUs are divided among the workers."""
    threads = config.threads
    if execution.ray_address is None:
        threads = max(1, usable_cpus() // execution.workers)
    return Demand(count=execution.workers, threads=threads, device=device)


def _stored_bytes(on: RetrainingData) -> int:
    """Of the images that workers share."""
    held = [on.tested] if on.validation is None else [on.tested, on.validation]
    return sum(images.nbytes for images, _ in held)


def networks_to_train(folder: RunFolder, start: str) -> list[Path]:
    """The exported folders of the networks that can be trained, the best first.

    Args:
        folder: The run's.
        start: As in `Recipe`.

    Raises:
        InputError: If the run has exported nothing yet, or has no such retraining.
    """
    if start in (SCRATCH, SUPERNET):
        return exported_networks(folder)
    known = sorted({path.parent.name for path in retrained_folders(folder.path)})
    if start not in known:
        raise InputError(
            f"`start` {start!r}: neither {SCRATCH}, {SUPERNET} nor the name of an earlier "
            f"retraining of {folder.path} ({', '.join(known) or 'there is none'})"
        )
    return [path for path in exported_front(folder.path, start) if (path / METRICS).exists()]


def exported_networks(folder: RunFolder) -> list[Path]:
    """The folders of a run's exported front, the best network first.

    Raises:
        InputError: If the run has exported nothing yet.
    """
    exported = exported_front(folder.path)
    if not exported:
        raise InputError(f"{folder.path}: nothing exported yet; run the search to its end first")
    return exported


def _table(jobs: Sequence[Retraining], results: Sequence[Retrained | InputError]) -> Table:
    """What was retrained, a row for each network; of those that failed there are no figures."""
    on, recipe = jobs[0].on, jobs[0].recipe
    _, labels = on.tested
    images = len(labels)
    chance = chance_text(on.data.num_classes, largest_class(labels), images)
    table = Table(
        title=f"retrained from {recipe.start}: accuracy on the test split of {on.data.name} "
        f"({images:,} images at {recipe.image_size} px; {chance})",
        box=SIMPLE_HEAD,
    )
    known = [objective for objective in on.objectives if objective.value is not None]
    rates = ["lr"] if len({job.recipe.lr for job in jobs}) > 1 else []
    before = recipe.start if jobs[0].goes_on else "exported"
    for name in ("front", *rates, *(o.label for o in known), before, "retrained"):
        table.add_column(name, justify="right")
    for job, result in zip(jobs, results, strict=True):
        named = [job.source.name, *(f"{job.recipe.lr:g}" for _ in rates)]
        if isinstance(result, InputError):
            table.add_row(*named, *("" for _ in known), "", "failed")
            continue
        table.add_row(
            *named,
            *(objective.cell(result.costs[objective.name]) for objective in known),
            format_accuracy(result.exported, images),
            format_accuracy(result.retrained, images),
        )
    return table
