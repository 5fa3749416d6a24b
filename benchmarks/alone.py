"""Networks trained alone, one row of a CSV each: what benchmarks of quality are held against.

A row that is there is not made again, and a training that was killed goes on from its last state,
so that long lists are worked off in as many sittings as it takes, by as many processes as there are
cores: `--part 0/2` and `--part 1/2` share a list.
"""

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from nas.data import Data, load_data, materialise
from nas.training.accuracy import fit
from nas.training.alone import Recipe, train_alone
from nas.utilities.interrupt import StopRequest
from search_space import Architecture, total_cost
from supernet import Network

MARKS = (100, 300, 540)
"""Steps at which the loss is noted: the mean of the 20 steps before."""

COLUMNS = (
    *("name", "hash", "seed", "steps", "macs", "params"),
    *(f"loss_{mark}" for mark in MARKS),
    *("search", "test", "seconds", "summary", "architecture"),
)
"""Of the CSV. `macs` and `params` at 224 px and 10 classes; `search` and `test` are the accuracies
on those splits, 0 to 1; `seconds` of one process, whatever ran beside."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One row to be made.

    Attributes:
        name: What it is called in the table.
        architecture: To be trained.
        seed: Of weights, order and augmentation.
        steps: How long.
    """

    name: str
    architecture: Architecture
    seed: int = 0
    steps: int = 540

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others in the table."""
        return self.architecture.hash, str(self.seed), str(self.steps)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags that every list of trainings has."""
    parser.add_argument("--data", default="digits")
    parser.add_argument("--size", type=int, default=64, help="pixels of the images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--part", default="0/1", help="this part of so many, such as 0/2")


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows that a table has so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_row(table: Path, columns: Sequence[str], row: Mapping[str, object]) -> None:
    """Write a row behind those that a table has."""
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def work_off(trainings: Sequence[Training], table: Path, options: argparse.Namespace) -> None:
    """Make the rows that the table lacks.

    Args:
        trainings: In the order in which they are made.
        table: The CSV that is added to.
        options: Those of `add_options`.
    """
    torch.set_num_threads(options.threads)
    part, parts = map(int, options.part.split("/"))
    table.parent.mkdir(parents=True, exist_ok=True)
    for number, training in enumerate(trainings):
        done = {(row["hash"], row["seed"], row["steps"]) for row in rows_of(table)}
        if number % parts != part or training.key in done:
            continue
        row = _row(training, table, options)
        add_row(table, COLUMNS, row)
        print(
            f"{training.name} seed {training.seed} steps {training.steps}: "
            f"{100 * row['test']:.1f} % in {row['seconds']} s",
            flush=True,
        )


def recipe(training: Training, options: argparse.Namespace) -> Recipe:
    """That of `retrain` where a user says nothing."""
    return Recipe(
        start="scratch",
        steps=training.steps,
        batch_size=64,
        lr=1e-3,
        drop_path=0.05,
        augment="light",
        image_size=options.size,
        seed=training.seed,
        device=options.device,
    )


@cache
def data_of(source: str, size: int) -> Data:
    """The data at that size; always the same canvases for `search` and `test`."""
    return load_data(source, image_size=size, seed=0)


def _row(training: Training, table: Path, options: argparse.Namespace) -> Mapping[str, object]:
    data = data_of(options.data, options.size)
    torch.manual_seed(training.seed)
    how = recipe(training, options)
    network = Network(
        training.architecture, num_classes=data.num_classes, drop_path_rate=how.drop_path
    ).to(how.device)
    name = "-".join((table.stem, *training.key))
    state = table.parent / f".{name}.safetensors"
    start = time.monotonic()
    curve = train_alone(
        network,
        data=data,
        recipe=how,
        state=state,
        stop=StopRequest(),
        on_progress=lambda point: None,
    )
    seconds = time.monotonic() - start
    cost = total_cost(training.architecture, num_classes=data.num_classes)
    row = {
        "name": training.name,
        "hash": training.architecture.hash,
        "seed": training.seed,
        "steps": training.steps,
        "macs": cost.macs,
        "params": cost.params,
        **accuracies(network, data),
        "seconds": round(seconds),
        "summary": training.architecture.summary,
        "architecture": training.architecture.model_dump_json(),
    }
    for mark in MARKS:
        some = [point.loss for point in curve[mark - 20 : mark]]
        row[f"loss_{mark}"] = round(sum(some) / len(some), 4) if some else ""
    state.unlink(missing_ok=True)
    return row


def accuracies(network: Network, data: Data) -> dict[str, float]:
    """Of a network on the splits `search` and `test`, 0 to 1."""
    found = {}
    for split in ("search", "test"):
        images, labels = materialise(getattr(data, split), limit=None, seed=0)
        accuracy = fit(network, images, labels, mean=data.mean, std=data.std).accuracy
        found[split] = round(accuracy, 4)
    return found
