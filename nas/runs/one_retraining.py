"""One architecture's way from its exported folder to its retrained one, in whatever process."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic_core import to_jsonable_python
from torch import Tensor

from nas.data import Data
from nas.export.network import export_network, stage_rows
from nas.export.pretrained import digest_of
from nas.objectives.objective import Objective
from nas.report.cards import ClassAccuracy, class_accuracies, retrained_card
from nas.report.legend import legend
from nas.report.picture import architecture_svg
from nas.report.trainings import MISTAKES, PICTURE_SIZE, Mistake, RetrainedNetwork
from nas.training.accuracy import confusion_matrix, predict
from nas.training.alone import (
    SCRATCH,
    SUPERNET,
    Point,
    Recipe,
    identity_of,
    new_network,
    train_alone,
)
from nas.training.checkpoint import load_checkpoint
from nas.training.given_teacher import GivenTeacher
from nas.training.strategies.strategy import Share
from nas.training.tensorboard import Scalars
from nas.utilities.bounds import Number, PositiveCount
from nas.utilities.devices import missing_memory_told
from nas.utilities.differences import first_difference
from nas.utilities.errors import Diverged, InputError
from nas.utilities.files import read_csv, read_json, write_csv, write_json
from nas.utilities.interrupt import StopRequest
from search_space import total_cost
from search_space.architecture import ARCHITECTURE
from supernet import ExportedNetwork, Network, load_exported

METRICS = "metrics.json"
"""What a retraining writes last."""

_MISTAKES = "mistakes.json"


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """What became of one architecture; accuracies are on the test split, 0 to 1.

    Attributes:
        rank: Its folder in `front/`, 1 being the best in the search.
        hash: Of the architecture.
        costs: The value of each closed-form objective of the run, by name: `macs`, `params`.
        exported: Accuracy with the weights that it was exported with: inherited from the supernet
            and, where there was a short list, trained alone for some steps; or with those of the
            earlier retraining that it began with.
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

    recipe: Recipe
    result: Retrained


@dataclass(frozen=True, kw_only=True)
class RetrainingData:
    """What all retrainings of a command have in common.

    Attributes:
        data: To train on.
        teacher: That which the recipes name.
        validation: Images, uint8 (N, 3, S, S), and labels, int64 (N,), that are held out of the
            train split; None where nothing is.
        tested: The test split, likewise.
        objectives: Of the run; the closed-form ones are told of.
        cost_size: Pixels at which costs count.
        loader_workers: Processes that load images, of each training.
        tensorboard: Whether the curves are written for TensorBoard, too.
    """

    data: Data
    teacher: GivenTeacher | None
    validation: tuple[Tensor, Tensor] | None
    tested: tuple[Tensor, Tensor]
    objectives: Sequence[Objective]
    cost_size: int
    loader_workers: int
    tensorboard: bool = False


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """One architecture's retraining, whose folders and state are its own.

    Attributes:
        title: What it is called while it goes on.
        source: The exported folder of the network: in the front, or in the earlier retraining that
            it begins with.
        target: The folder for what it gives.
        recipe: How the network is trained.
        on: The data, and what is told of them.
    """

    title: str
    source: Path
    target: Path
    recipe: Recipe
    on: RetrainingData

    @property
    def goes_on(self) -> bool:
        """Whether it begins with the weights of an earlier retraining."""
        return self.recipe.start not in (SCRATCH, SUPERNET)

    @property
    def state(self) -> Path:
        """Where the state of the training is kept."""
        return self.target.parent / f".{self.target.name}.state.safetensors"

    def last_saved(self) -> int:
        """When it was last seen at work, in nanoseconds of its disk's clock; 0 if never.

        That is when the state was written or, while images are measured, after each batch.
        """
        seen = [0]
        for file in (self.state, self._alive):
            with suppress(FileNotFoundError):
                seen.append(file.stat().st_mtime_ns)
        return max(seen)

    @property
    def _alive(self) -> Path:
        return self.target.parent / f".{self.target.name}.alive"

    def _beat(self) -> None:
        """Show that it is at work while it writes nothing else."""
        self._alive.parent.mkdir(parents=True, exist_ok=True)
        self._alive.touch()

    def known(self) -> Retrained | None:
        """What an earlier process found out, if it came to the end; all is seen to be in order.

        Raises:
            InputError: If the exported folder is damaged or of other classes than the data, or the
                target has the work of another recipe or of another architecture.
        """
        exported, _ = self._exported()
        identity = identity_of(exported.architecture, self._recipe(exported))
        metrics = self.target / METRICS
        if metrics.exists():
            known = read_json(metrics, _Metrics, remedy="delete it to train again")
            # A recipe of before some of its numbers stood in it had their defaults, and its weights
            # are not known.
            recipe = known.recipe.model_dump(mode="json")
            recipe["weights"] = recipe["weights"] or identity["weights"]
            self._check_same({"architecture": known.result.hash, **recipe}, identity)
            return known.result
        if self.state.exists():
            self._check_same(load_checkpoint(self.state).identity, identity)
        return None

    def run(self, *, stop: StopRequest, on_step: Callable[[int, float], None]) -> Retrained:
        """Train the network, from the last saved state if there is one, measure it, and export it.

        Args:
            stop: Looked at after every step.
            on_step: Called after every step, with the steps done and the loss of this one.

        Raises:
            InputError: As `known`, or if the network's loss or class scores are not finite.
            Interrupted: If a stop was requested; the state was saved.
        """
        exported, about = self._exported()
        recipe, data, images = self._recipe(exported), self.on.data, len(self.on.tested[1])
        network = new_network(
            exported.architecture, recipe, num_classes=about.num_classes, given=exported
        )
        # Before the training: that it cannot be measured is not to be found out after hours.
        before, _ = self._tested(exported.to(recipe.device), named=f"{self.source}")
        board = self.target.parent / "tensorboard" if self.on.tensorboard else None
        with Scalars(board) as scalars:

            def tell(point: Point) -> None:
                scalars.write_point(self.target.name, point)
                on_step(point.step, point.loss)

            curve = train_alone(
                network,
                data=data,
                recipe=recipe,
                state=self.state,
                stop=stop,
                on_progress=tell,
                validation=self.on.validation,
                teacher=self.on.teacher,
                loader_workers=self.on.loader_workers,
                alive=self._beat,
            )
        after, mistakes = self._tested(network, named=f"`lr` {recipe.lr:g}, try a lower rate")
        cost = total_cost(
            network.architecture, image_size=self.on.cost_size, num_classes=about.num_classes
        )
        result = Retrained(
            rank=int(self.source.name),
            hash=network.architecture.hash,
            costs={o.name: o.value(cost) for o in self.on.objectives if o.value is not None},
            exported=_accuracy(before),
            retrained=_accuracy(after),
            test_images=images,
        )
        self._export(network, recipe, result, after)
        self._write_tables(curve, after)
        write_json(self.target / _MISTAKES, to_jsonable_python(mistakes))
        # Last, since it says that all the rest is there.
        metrics = _Metrics(recipe=recipe, result=result)
        write_json(self.target / METRICS, to_jsonable_python(metrics))
        self.state.unlink(missing_ok=True)
        return result

    def _recipe(self, exported: Network) -> Recipe:
        """The recipe with the digest of the weights that the training begins with."""
        if self.recipe.start == SCRATCH:
            return self.recipe
        weights = digest_of(exported, exported.architecture.hash)
        return self.recipe.model_copy(update={"weights": weights})

    def _exported(self) -> tuple[Network, ExportedNetwork]:
        try:
            exported, about = load_exported(self.source)
        except ValueError as error:
            remedy = (
                "retrain it again" if self.goes_on else "run the search again to export it anew"
            )
            raise InputError(f"{error}; {remedy}") from None
        if about.class_names != self.on.data.class_names:
            raise InputError(f"{self.source}: was trained on other classes than the data has")
        return exported, about

    def _check_same(self, known: dict[str, Any], identity: dict[str, Any]) -> None:
        """Refuse to replace the work of another recipe, or on another architecture."""
        if difference := first_difference(*map(_as_arguments, (known, identity))):
            raise InputError(
                f"{self.target}: was retrained otherwise ({difference}); give another `name`"
            )

    def _tested(self, network: Network, *, named: str) -> tuple[Tensor, list[Mistake]]:
        """Confusion matrix and surest mistakes on the test split.

        Where there are no class scores, a line says so of `named`.
        """
        data, (images, labels) = self.on.data, self.on.tested
        try:
            with missing_memory_told("the test split", self.recipe.device):
                predicted, sure = predict(
                    network, images, mean=data.mean, std=data.std, on_batch=self._beat
                )
        except Diverged as error:
            raise Diverged(f"{named}: {error}") from None
        finally:
            self._alive.unlink(missing_ok=True)
            with suppress(OSError):  # it holds something, or was never there
                self._alive.parent.rmdir()
        confusion = confusion_matrix(labels, predicted, num_classes=data.num_classes)
        wrong = (predicted != labels).nonzero().flatten()
        surest = wrong[sure[wrong].argsort(descending=True, stable=True)][:MISTAKES]
        mistakes = [
            Mistake(
                image=image,
                truth=data.class_names[int(labels[image])],
                predicted=data.class_names[int(predicted[image])],
                probability=float(sure[image]),
                png=_png(images[image]),
            )
            for image in surest.tolist()
        ]
        return confusion, mistakes

    def _write_tables(self, curve: Sequence[Point], confusion: Tensor) -> None:
        write_csv(self.target / "curve.csv", Point._fields, curve)
        write_csv(
            self.target / "classes.csv",
            ("class", "images", "accuracy"),
            ((known.name, known.images, known.accuracy) for known in self._classes(confusion)),
        )
        names = self.on.data.class_names
        rows = zip(names, confusion.tolist(), strict=True)
        write_csv(
            self.target / "confusion.csv",
            ("true class", *names),
            ((name, *counts) for name, counts in rows),
        )

    def _classes(self, confusion: Tensor) -> list[ClassAccuracy]:
        return class_accuracies(confusion.tolist(), self.on.data.class_names)

    def _export(
        self, network: Network, recipe: Recipe, result: Retrained, confusion: Tensor
    ) -> None:
        data, objectives = self.on.data, self.on.objectives
        counted = {"image_size": self.on.cost_size, "num_classes": len(data.class_names)}
        card = retrained_card(
            name=f"{self.target.parent.name}/{self.target.name}",
            data=data.name,
            summary=network.architecture.summary,
            hash=result.hash,
            costs=[
                (f"{o.label}, {o.defined(**counted)}", text)
                for o, text in _amounts(objectives, result)
            ],
            proxy_size=recipe.image_size,
            before=(
                f"the weights of {recipe.start}, from which it went on"
                if self.goes_on
                else "the weights that the search exported",
                result.exported,
            ),
            retrained=result.retrained,
            test_images=result.test_images,
            classes=self._classes(confusion),
            recipe=recipe.model_dump(mode="json"),
            stages=stage_rows(network.architecture, self.on.cost_size),
            words=legend([network.architecture]),
            class_names=data.class_names,
            mean=data.mean,
            std=data.std,
            crop=data.crop,
        )
        picture = architecture_svg(
            network.architecture,
            name=f"architecture {result.hash}",
            image_size=self.on.cost_size,
            num_classes=len(data.class_names),
            standalone=True,
        )
        export_network(
            self.target,
            network.cpu(),
            data,
            image_size=recipe.image_size,
            card=card,
            picture=picture,
        )


def retrained_networks(folder: Path) -> list[RetrainedNetwork]:
    """All that was retrained in a run's folder, in the order of the folders' names.

    Raises:
        InputError: If a file of one is damaged.
    """
    return [_retrained_network(path) for path in retrained_folders(folder)]


def retrained_folders(folder: Path) -> list[Path]:
    """The folders `NAME/PLACE` of all networks that were retrained in a run's, by their names.

    Others in which a user keeps a `metrics.json` have no place of the front for a name.
    """
    paths = (file.parent for file in folder.glob(f"*/[1-9]*/{METRICS}"))
    return sorted(
        (path for path in paths if (path / ARCHITECTURE).exists()),
        key=lambda path: (path.parent.name, path.name),
    )


def _retrained_network(target: Path) -> RetrainedNetwork:
    """What a retraining has left; of an older one some tables may be missing."""
    remedy = "delete the folder to train again"
    metrics = read_json(target / METRICS, _Metrics, remedy=remedy)
    result, recipe = metrics.result, metrics.recipe
    curve, confusion, mistakes = (
        target / name for name in ("curve.csv", "confusion.csv", _MISTAKES)
    )
    counts = read_csv(confusion, _counts, remedy=remedy) if confusion.exists() else []
    if any(len(row) != len(counts) for _, row in counts):
        raise InputError(f"{confusion}: not as many rows as columns; {remedy}")
    return RetrainedNetwork(
        name=f"{target.parent.name}/{target.name}",
        hash=result.hash,
        start=recipe.start,
        steps=recipe.steps,
        image_size=recipe.image_size,
        lr=recipe.lr,
        exported=result.exported,
        retrained=result.retrained,
        test_images=result.test_images,
        curve=read_csv(curve, _point, remedy=remedy) if curve.exists() else [],
        class_names=[name for name, _ in counts],
        confusion=[row for _, row in counts],
        mistakes=read_json(mistakes, list[Mistake], remedy=remedy) if mistakes.exists() else [],
    )


def _point(cells: list[str]) -> Point:
    step, loss, lr, accuracy = cells
    return Point(int(step), float(loss), float(lr), float(accuracy) if accuracy else None)


def _counts(cells: list[str]) -> tuple[str, list[int]]:
    name, *counts = cells
    return name, list(map(int, counts))


ARGUMENTS = {"image_size": "train_size", "held_out": "validate"}
"""What the fields of a `Recipe` are called where they are asked for, if otherwise."""


def _as_arguments(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's fields by the names of the arguments that the user gives."""
    return {ARGUMENTS.get(name, name): value for name, value in identity.items()}


def _png(image: Tensor) -> str:
    """An image, uint8 (3, S, S), as a PNG in base64, of `PICTURE_SIZE` pixels at most."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    written = BytesIO()
    picture.save(written, format="PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def _accuracy(confusion: Tensor) -> float:
    """Share of the images that were taken for what they are."""
    return int(confusion.trace()) / int(confusion.sum())


def _amounts(objectives: Sequence[Objective], result: Retrained) -> Iterator[tuple[Objective, str]]:
    """Each closed-form objective and its value to the last digit."""
    for objective in objectives:
        if objective.name in result.costs:
            yield objective, objective.exact(result.costs[objective.name])
