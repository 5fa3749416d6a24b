"""Retraining: exported architectures trained alone, then measured on the test split."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nas.data import Augment, Data, OwnDataset, hold_out, load_data, materialise
from nas.export.network import export_network, exported_front, stage_rows
from nas.objectives.objective import Objective
from nas.report.cards import ClassAccuracy, class_accuracies, retrained_card
from nas.runs.config import BATCH
from nas.runs.configure import default_loader_workers, illegal_field
from nas.runs.folder import RunFolder, logging_to
from nas.runs.memory import check_training
from nas.runs.same_data import data_again, keep_data
from nas.training.accuracy import confusion_matrix, predict
from nas.training.alone import (
    LARGEST_HELD_OUT,
    ClassWeights,
    Point,
    Recipe,
    Start,
    identity_of,
    new_network,
    train_alone,
)
from nas.training.checkpoint import load_checkpoint
from nas.training.strategies.strategy import Share
from nas.utilities.bounds import Number, PositiveCount
from nas.utilities.devices import check_device
from nas.utilities.differences import first_difference
from nas.utilities.errors import Diverged, InputError
from nas.utilities.files import read_json, write_csv, write_json
from nas.utilities.interrupt import StopRequest, stop_on_signals
from nas.utilities.progress import LiveLine
from nas.utilities.units import format_accuracy
from search_space import total_cost
from supernet import Network, load_exported

_IMAGES = 2
"""Times as many images as the supernet saw, where the user asks for no number of steps."""


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """What became of one architecture; accuracies are on the test split, 0 to 1.

    Attributes:
        rank: Its folder in `front/`, 1 being the most accurate in the search.
        hash: Of the architecture.
        costs: The value of each closed-form objective of the run, by name: `macs`, `params`.
        exported: Accuracy with the weights that it was exported with: inherited from the supernet
            and, where there was a short list, trained alone for some steps.
        retrained: Accuracy after training alone.
        test_images: Size of the test split.
    """

    rank: PositiveCount
    hash: str
    costs: Mapping[str, Number]
    exported: Share
    retrained: Share
    test_images: PositiveCount


@dataclass(frozen=True, kw_only=True)
class _Metrics:
    """What `metrics.json` holds."""

    hash: str
    recipe: Recipe
    result: Retrained


def retrain_run(
    folder: RunFolder,
    *,
    top: int,
    name: str,
    start: Start,
    steps: int | None,
    epochs: int | None,
    batch_size: int | None,
    lr: float,
    drop_path: float,
    augment: Augment,
    train_size: int | None,
    ema: float,
    layer_decay: float,
    validate: float,
    class_weights: ClassWeights,
    accumulate: int,
    seed: int,
    device: str | None,
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
    device = check_device(config.device if device is None else device)
    if train_size is None:
        train_size = config.proxy_size
    if batch_size is None:
        batch_size = BATCH
    if steps is None:
        steps = max(1, _IMAGES * config.steps * config.batch_size // max(1, batch_size))
    recipe = _checked_recipe(
        start=start,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
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
    )
    exported_networks(folder)  # refuses a run without any, before the data are loaded
    folder.retrained(name)  # likewise a name that cannot be used
    source = data_again(config, data)
    loaded = load_data(
        source,
        image_size=train_size,
        seed=config.seed,
        augment=augment,
    )
    check_training(
        config.space,
        images=len(loaded.test) + round(validate * len(loaded.train)),
        batch_size=math.ceil(batch_size / accumulate),
        image_size=train_size,
        device=device,
    )
    if epochs is not None:
        steps = epochs * max(1, round((1 - validate) * loaded.epoch_size / batch_size))
        recipe = _checked_recipe(**recipe.model_dump() | {"steps": steps})
    if loader_workers is None:
        loader_workers = default_loader_workers(config.data)
    with stop_on_signals() as stop:
        return retrain(
            folder,
            data=loaded,
            top=top,
            recipe=recipe,
            name=name,
            loader_workers=loader_workers,
            stop=stop,
            console=console,
        )


def _checked_recipe(**fields: Any) -> Recipe:
    """A recipe of what a user asks for.

    Raises:
        InputError: With the first field that is illegal.
    """
    try:
        return Recipe(**fields)
    except ValidationError as error:
        raise illegal_field(error) from None


def retrain(
    folder: RunFolder,
    *,
    data: Data,
    top: int,
    recipe: Recipe,
    name: str = "retrain",
    loader_workers: int,
    stop: StopRequest,
    console: Console,
) -> list[Retrained]:
    """Train the `top` most accurate architectures of a run's front, and print a table of them.

    Each network leaves `<name>/<n>/` with its weights, model card, `metrics.json` and three tables:
    `curve.csv` of its training, `classes.csv` and `confusion.csv` of the test split. One that is
    done is not trained again.

    Args:
        folder: The run's.
        data: To train and test on: what the run had, at the recipe's image size.
        top: How many architectures.
        recipe: How each is trained.
        name: Folder in the run's for the results.
        loader_workers: Processes that load images.
        stop: Looked at after every step.
        console: Where progress and the table are shown.

    Raises:
        InputError: If the run has exported nothing yet, the device is absent, the data has other
            classes, the folder `name` holds the work of another recipe, or a network's loss or
            class scores are not finite.
        Interrupted: If a stop was requested; the same command goes on.
    """
    check_device(recipe.device)
    exported = exported_networks(folder)[:top]
    config = folder.config
    objectives = config.limits.objectives
    if len(exported) < top:
        console.print(f"the front has only {len(exported)} architectures", style="yellow")
    with folder.locked(), logging_to(folder):
        for leak in keep_data(folder, data):
            console.print(leak, style="yellow")
        tested = materialise(
            data.test, limit=None, seed=config.seed, workers=loader_workers, stop=stop
        )
        validation = None
        if recipe.held_out:
            data, held_out = hold_out(data, recipe.held_out, seed=config.seed)
            validation = materialise(
                held_out, limit=None, seed=config.seed, workers=loader_workers, stop=stop
            )
        results = []
        for source in exported:
            job = _Retraining(
                source,
                folder.retrained(name) / source.name,
                recipe,
                data=data,
                validation=validation,
                tested=tested,
                objectives=objectives,
            )
            results.append(job.run(config.image_size, loader_workers, stop, console))
    console.print(_table(results, data, recipe, objectives))
    return results


def exported_networks(folder: RunFolder) -> list[Path]:
    """The folders of a run's exported front, the most accurate network first.

    Raises:
        InputError: If the run has exported nothing yet.
    """
    exported = exported_front(folder.path)
    if not exported:
        raise InputError(f"{folder.path}: nothing exported yet; run the search to its end first")
    return exported


class _Retraining:
    """One architecture's way from its exported folder to its retrained one."""

    def __init__(
        self,
        source: Path,
        target: Path,
        recipe: Recipe,
        *,
        data: Data,
        validation: tuple[Tensor, Tensor] | None,
        tested: tuple[Tensor, Tensor],
        objectives: Sequence[Objective],
    ) -> None:
        self.source, self.target = source, target
        self.recipe, self.data = recipe, data
        self.validation, self.tested = validation, tested
        self.objectives = objectives
        self.metrics = target / "metrics.json"
        self.state = target.parent / f".{target.name}.state.safetensors"

    def run(
        self, image_size: int, loader_workers: int, stop: StopRequest, console: Console
    ) -> Retrained:
        try:
            exported, about = load_exported(self.source)
        except ValueError as error:
            raise InputError(f"{error}; run the search again to export it anew") from None
        identity = identity_of(exported.architecture, self.recipe)
        if (done := self._done(identity)) is not None:
            console.print(f"front/{self.source.name}: retrained already")
            return done
        if about.class_names != self.data.class_names:
            raise InputError(f"{self.source}: was trained on other classes than the data has")
        if self.state.exists():
            self._check_same(load_checkpoint(self.state).identity, identity)
        recipe = self.recipe
        network = new_network(
            exported.architecture, recipe, num_classes=about.num_classes, given=exported
        )
        # Before the training: that it cannot be measured is not to be found out after hours.
        before = self._confusion(exported.to(recipe.device), named=f"{self.source}")
        title = f"front/{self.source.name} from {recipe.start}"
        with LiveLine(console, title, total=recipe.steps) as line:

            def show(step: int, loss: float) -> None:
                line.update(step, f"loss {loss:.2f}")

            curve = train_alone(
                network,
                data=self.data,
                recipe=recipe,
                state=self.state,
                stop=stop,
                on_progress=show,
                validation=self.validation,
                loader_workers=loader_workers,
            )
        after = self._confusion(network, named=f"`lr` {recipe.lr:g}, try a lower rate")
        cost = total_cost(
            network.architecture, image_size=image_size, num_classes=about.num_classes
        )
        result = Retrained(
            rank=int(self.source.name),
            hash=network.architecture.hash,
            costs={o.name: o.value(cost) for o in self.objectives if o.value is not None},
            exported=_accuracy(before),
            retrained=_accuracy(after),
            test_images=len(self.tested[1]),
        )
        self._export(network, result, after, image_size)
        self._write_tables(curve, after)
        # Last, since it says that all the rest is there.
        metrics = _Metrics(hash=result.hash, recipe=recipe, result=result)
        write_json(self.metrics, to_jsonable_python(metrics))
        self.state.unlink(missing_ok=True)
        return result

    def _done(self, identity: dict[str, Any]) -> Retrained | None:
        """What an earlier process found out, if it came to the end."""
        if not self.metrics.exists():
            return None
        known = read_json(self.metrics, _Metrics, remedy="delete it to train again")
        # A recipe of before some of its numbers stood in it had their defaults.
        recipe = known.recipe.model_dump(mode="json")
        self._check_same({"architecture": known.result.hash, **recipe}, identity)
        return known.result

    def _check_same(self, known: dict[str, Any], identity: dict[str, Any]) -> None:
        """Refuse to replace the work of another recipe, or on another architecture."""
        if difference := first_difference(known, identity):
            raise InputError(
                f"{self.target}: was retrained otherwise ({difference}); give another `name`"
            )

    def _confusion(self, network: Network, *, named: str) -> Tensor:
        """Confusion matrix of the test split; where there is none, a line says so of `named`."""
        images, labels = self.tested
        try:
            predicted = predict(network, images, mean=self.data.mean, std=self.data.std)
        except Diverged as error:
            raise Diverged(f"{named}: {error}") from None
        return confusion_matrix(labels, predicted, num_classes=self.data.num_classes)

    def _write_tables(self, curve: Sequence[Point], confusion: Tensor) -> None:
        write_csv(self.target / "curve.csv", Point._fields, curve)
        write_csv(
            self.target / "classes.csv",
            ("class", "images", "accuracy"),
            ((known.name, known.images, known.accuracy) for known in self._classes(confusion)),
        )
        names = self.data.class_names
        rows = zip(names, confusion.tolist(), strict=True)
        write_csv(
            self.target / "confusion.csv",
            ("true class", *names),
            ((name, *counts) for name, counts in rows),
        )

    def _classes(self, confusion: Tensor) -> list[ClassAccuracy]:
        return class_accuracies(confusion.tolist(), self.data.class_names)

    def _export(
        self, network: Network, result: Retrained, confusion: Tensor, image_size: int
    ) -> None:
        recipe, classes = self.recipe, len(self.data.class_names)
        card = retrained_card(
            name=f"{self.target.parent.name}/{self.target.name}",
            data=self.data.name,
            summary=network.architecture.summary,
            hash=result.hash,
            costs=[
                (f"{o.label}, {o.defined(image_size=image_size, num_classes=classes)}", text)
                for o, text in _amounts(self.objectives, result)
            ],
            proxy_size=recipe.image_size,
            exported=result.exported,
            retrained=result.retrained,
            test_images=result.test_images,
            classes=self._classes(confusion),
            recipe=recipe.model_dump(mode="json"),
            stages=stage_rows(network.architecture, image_size),
            class_names=self.data.class_names,
            mean=self.data.mean,
            std=self.data.std,
            crop=self.data.crop,
        )
        export_network(
            self.target, network.cpu(), self.data, image_size=recipe.image_size, card=card
        )


def _accuracy(confusion: Tensor) -> float:
    """Share of the images that were taken for what they are."""
    return int(confusion.trace()) / int(confusion.sum())


def _amounts(objectives: Sequence[Objective], result: Retrained) -> Iterator[tuple[Objective, str]]:
    """Each closed-form objective and its value to the last digit."""
    for objective in objectives:
        if objective.name in result.costs:
            yield objective, objective.exact(result.costs[objective.name])


def _table(
    results: list[Retrained], data: Data, recipe: Recipe, objectives: Sequence[Objective]
) -> Table:
    images = results[0].test_images
    table = Table(
        title=f"retrained from {recipe.start}: accuracy on the test split of {data.name} "
        f"({images:,} images at {recipe.image_size} px)",
        box=SIMPLE_HEAD,
    )
    known = [objective for objective in objectives if objective.name in results[0].costs]
    for name in ("front", *(objective.label for objective in known), "exported", "retrained"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            str(result.rank),
            *(objective.cell(result.costs[objective.name]) for objective in known),
            format_accuracy(result.exported, images),
            format_accuracy(result.retrained, images),
        )
    return table
