"""Retraining: exported architectures trained alone, then measured on the test split.

The recipe is the one that the designs of the field share (DeiT): AdamW, a cosine with warm-up,
label smoothing, stochastic depth, clipping; with `augment="full"` also RandAugment, mixup, cutmix
and random erasing, which pay off in long trainings.
"""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.data.mixup import Mixup, mixup_target
from timm.data.random_erasing import RandomErasing
from timm.optim import create_optimizer_v2
from torch import Tensor
from torch.nn import functional as F

from nas.data import Augment, Data, load_data, materialise, normalise, train_batches
from nas.export.network import export_network, stage_rows
from nas.report.cards import retrained_card
from nas.runs.folder import RunFolder, logging_to
from nas.training.accuracy import count_correct
from nas.training.supernet import learning_rate
from nas.utilities.devices import check_device
from nas.utilities.errors import InputError
from nas.utilities.files import replacing, write_json
from nas.utilities.interrupt import StopRequest
from nas.utilities.progress import LiveLine
from nas.utilities.seeding import derived_seed, seed_global_generators
from nas.utilities.units import format_count
from search_space import total_cost
from supernet import Network, load_exported

logger = logging.getLogger(__name__)

Start = Literal["scratch", "supernet"]

CHECKPOINT_STEPS = 200
CLIP_NORM = 5.0
SMOOTHING = 0.1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained alone.

    Attributes:
        start: From fresh weights, or from those inherited from the supernet.
        steps: Training steps.
        batch_size: Images in a step.
        lr: Peak learning rate.
        weight_decay: Of matrices and kernels.
        drop_path: Stochastic depth of the last block.
        augment: `full` for DeiT's augmentation, `light` for crops and flips alone.
        image_size: Side in pixels.
        seed: Of weights, order and augmentation.
        device: Where to train.
    """

    start: Start
    steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.05
    drop_path: float
    augment: Augment
    image_size: int
    seed: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """What became of one architecture; accuracies are on the test split, 0 to 1.

    Attributes:
        rank: Its folder in `front/`, 1 being the most accurate in the search.
        hash: Of the architecture.
        macs: Multiply-adds at the run's image size.
        params: Parameters.
        inherited: Accuracy with the weights inherited from the supernet.
        retrained: Accuracy after training alone.
        test_images: Size of the test split.
    """

    rank: int
    hash: str
    macs: int
    params: int
    inherited: float
    retrained: float
    test_images: int


def retrain(
    folder: RunFolder,
    *,
    top: int,
    recipe: Recipe,
    name: str = "retrain",
    epochs: int | None = None,
    loader_workers: int,
    stop: StopRequest,
    console: Console,
) -> list[Retrained]:
    """Train the `top` most accurate architectures of a run's front, and print a table of them.

    `epochs`, passes over the train split, take the place of the recipe's steps. Each network leaves
    `<name>/<n>/` with its weights, model card and `metrics.json`. One that is done is not trained
    again.

    Raises:
        InputError: If the run has exported nothing yet, the device is absent, or the folder `name`
            holds the work of another recipe.
        Interrupted: If a stop was requested; the same command goes on.
    """
    check_device(recipe.device)
    exported = sorted(folder.front.glob("[0-9]*"), key=lambda path: int(path.name))[:top]
    if not exported:
        raise InputError(f"{folder.path}: nothing exported yet; run the search to its end first")
    config = folder.config
    if len(exported) < top:
        console.print(f"[yellow]the front has only {len(exported)} architectures")
    data = load_data(
        config.data, image_size=recipe.image_size, seed=config.seed, augment=recipe.augment
    )
    if epochs is not None:
        per_epoch = max(1, round(data.epoch_size / recipe.batch_size))
        recipe = replace(recipe, steps=epochs * per_epoch)
    with folder.locked(), logging_to(folder):
        tested = materialise(data.test, limit=None, seed=config.seed, workers=loader_workers)
        results = []
        for source in exported:
            job = _Retraining(source, folder.retrained(name) / source.name, recipe, data, tested)
            results.append(job.run(config.image_size, loader_workers, stop, console))
    console.print(_table(results, data, recipe))
    return results


class _Retraining:
    """One architecture's way from its exported folder to its retrained one."""

    def __init__(
        self, source: Path, target: Path, recipe: Recipe, data: Data, tested: tuple[Tensor, Tensor]
    ) -> None:
        self.source, self.target = source, target
        self.recipe, self.data, self.tested = recipe, data, tested
        self.metrics = target / "metrics.json"
        self.state = target.parent / f".{target.name}.state.safetensors"

    def run(
        self, image_size: int, loader_workers: int, stop: StopRequest, console: Console
    ) -> Retrained:
        try:
            inherited, about = load_exported(self.source)
        except ValueError as error:
            raise InputError(f"{error}; run the search again to export it anew") from None
        identity = {"hash": inherited.architecture.hash, "recipe": asdict(self.recipe)}
        if (done := self._done(identity)) is not None:
            console.print(f"front/{self.source.name}: retrained already", highlight=False)
            return done
        if about.class_names != self.data.class_names:
            raise InputError(f"{self.source}: was trained on other classes than the data has")
        recipe = self.recipe
        torch.manual_seed(recipe.seed)
        network = Network(
            inherited.architecture,
            num_classes=about.num_classes,
            drop_path_rate=recipe.drop_path,
        )
        if recipe.start == "supernet":
            network.load_state_dict(inherited.state_dict())
        network.to(recipe.device)
        title = f"front/{self.source.name} from {recipe.start}"
        with LiveLine(console, title, total=recipe.steps) as line:

            def show(step: int, loss: float) -> None:
                line.update(step, f"loss {loss:.2f}")

            self._train(network, identity, loader_workers, stop, show)
        cost = total_cost(
            network.architecture, image_size=image_size, num_classes=about.num_classes
        )
        result = Retrained(
            rank=int(self.source.name),
            hash=network.architecture.hash,
            macs=cost.macs,
            params=cost.params,
            inherited=self._accuracy(inherited.to(recipe.device)),
            retrained=self._accuracy(network),
            test_images=len(self.tested[1]),
        )
        self._export(network, result, image_size)
        # Last, since it says that all the rest is there.
        write_json(self.metrics, {**identity, "result": asdict(result)})
        self.state.unlink(missing_ok=True)
        return result

    def _done(self, identity: dict[str, Any]) -> Retrained | None:
        if not self.metrics.exists():
            return None
        known = json.loads(self.metrics.read_bytes())
        self._check_same(known, identity)
        return Retrained(**known["result"])

    def _check_same(self, known: dict[str, Any], identity: dict[str, Any]) -> None:
        """Refuse to replace the work of another recipe, or on another architecture."""
        old, new = ({"architecture": i["hash"], **i["recipe"]} for i in (known, identity))
        for field, value in new.items():
            if old[field] != value:
                raise InputError(
                    f"{self.target}: was retrained otherwise ({field} is {old[field]} there, "
                    f"{value} here); give another `name`"
                )

    def _train(
        self,
        network: Network,
        identity: dict[str, Any],
        loader_workers: int,
        stop: StopRequest,
        on_step: Callable[[int, float], None],
    ) -> None:
        recipe = self.recipe
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            _parameter_groups(network, recipe.weight_decay), opt="adamw", lr=recipe.lr
        )
        step = self._load_state(network, optimizer, identity)
        batches = train_batches(
            self.data,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            first_step=step,
            steps=recipe.steps - step,
            workers=loader_workers,
        )
        augment = _BatchAugmentation(recipe, self.data.num_classes)
        network.train()
        for images, labels in batches:
            # Stochastic depth and mixing draw from the step alone, so that a resumed training
            # gives the result of an uninterrupted one.
            seed = derived_seed("retrain", recipe.seed, step)
            seed_global_generators(seed)
            torch.manual_seed(seed)  # the GPUs' generators, too
            images = normalise(images.to(recipe.device), self.data.mean, self.data.std)
            images, targets = augment(images, labels.to(recipe.device))
            for group in optimizer.param_groups:
                rate = learning_rate(step, steps=recipe.steps, peak=recipe.lr)
                group["lr"] = rate * group["lr_scale"]
            with torch.autocast(torch.device(recipe.device).type, torch.bfloat16):
                logits = network(images)
            loss = F.cross_entropy(logits.float(), targets)
            if not math.isfinite(loss.item()):
                raise InputError(
                    f"`lr` {recipe.lr:g}: the loss is {loss.item()} at step {step}; "
                    "try a lower rate"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimizer.step()
            step += 1
            on_step(step, loss.item())
            if stop.requested or step % CHECKPOINT_STEPS == 0:
                self._save_state(network, optimizer, step, identity)
            stop.check()

    def _save_state(
        self,
        network: Network,
        optimizer: torch.optim.Optimizer,
        step: int,
        identity: dict[str, Any],
    ) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        metadata = {"step": str(step), "identity": json.dumps(identity)}
        with replacing(self.state) as path:
            save_file(tensors, path, metadata=metadata)

    def _load_state(
        self, network: Network, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
    ) -> int:
        """Take up an interrupted training of the same network and recipe; the step it is at."""
        if not self.state.exists():
            return 0
        try:
            with safe_open(self.state, framework="pt", device=self.recipe.device) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{self.state}: cannot be read ({error}); delete it") from None
        self._check_same(json.loads(metadata["identity"]), identity)
        moments: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            part, rest = name.split(".", 1)
            if part == "network":
                weights[rest] = tensor
            else:
                index, moment = rest.split(".")
                moments.setdefault(int(index), {})[moment] = tensor
        network.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        return int(metadata["step"])

    def _accuracy(self, network: Network) -> float:
        images, labels = self.tested
        correct = count_correct(network, images, labels, mean=self.data.mean, std=self.data.std)
        return correct / len(labels)

    def _export(self, network: Network, result: Retrained, image_size: int) -> None:
        recipe = self.recipe
        card = retrained_card(
            name=f"{self.target.parent.name}/{self.target.name}",
            data=self.data.name,
            summary=network.architecture.summary,
            hash=result.hash,
            macs=result.macs,
            params=result.params,
            image_size=image_size,
            proxy_size=recipe.image_size,
            inherited=result.inherited,
            retrained=result.retrained,
            test_images=result.test_images,
            recipe=asdict(recipe),
            stages=stage_rows(network.architecture, image_size),
            class_names=self.data.class_names,
            mean=self.data.mean,
            std=self.data.std,
        )
        export_network(
            self.target, network.cpu(), self.data, image_size=recipe.image_size, card=card
        )


def _parameter_groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters by weight decay and by share of the learning rate."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    parameters = dict(network.named_parameters())
    for name, setting in network.parameter_settings().items():
        decay = weight_decay if setting.decayed else 0.0
        groups.setdefault((decay, setting.lr_scale), []).append(parameters[name])
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in groups.items()
    ]


class _BatchAugmentation:
    """What is done to whole batches: label smoothing always, mixing and erasing with `full`.

    Draws from the global generators.
    """

    def __init__(self, recipe: Recipe, num_classes: int) -> None:
        self.num_classes = num_classes
        self.mixup: Mixup | None = None
        self.erase: RandomErasing | None = None
        if recipe.augment == "full":
            if recipe.batch_size % 2:
                raise InputError(
                    f"`batch_size` {recipe.batch_size}: mixing pairs needs an even one"
                )
            self.mixup = Mixup(
                mixup_alpha=0.8,
                cutmix_alpha=1.0,
                label_smoothing=SMOOTHING,
                num_classes=num_classes,
            )
            self.erase = RandomErasing(probability=0.25, mode="pixel", device=recipe.device)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) and labels (B,) → images and target probabilities (B, classes)."""
        if self.mixup is None or self.erase is None:
            return images, mixup_target(labels, self.num_classes, smoothing=SMOOTHING)
        images, targets = self.mixup(images, labels)
        return self.erase(images), targets


def _table(results: list[Retrained], data: Data, recipe: Recipe) -> Table:
    images = results[0].test_images
    table = Table(
        title=f"retrained from {recipe.start}: accuracy on the test split of {data.name} "
        f"({images:,} images at {recipe.image_size} px)",
        box=SIMPLE_HEAD,
    )
    for name in ("front", "MACs", "params", "inherited", "retrained"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            str(result.rank),
            format_count(result.macs).rstrip(),
            format_count(result.params).rstrip(),
            _with_error(result.inherited, images),
            _with_error(result.retrained, images),
        )
    return table


def _with_error(accuracy: float, images: int) -> str:
    """An accuracy with its standard error."""
    error = math.sqrt(accuracy * (1 - accuracy) / images)
    return f"{100 * accuracy:.1f} ± {100 * error:.1f} %"
