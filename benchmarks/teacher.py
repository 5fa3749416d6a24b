"""What a teacher adds to training alone, from drawn weights and from those of a supernet.

    python -m benchmarks.teacher teach --out resnet18
    python -m benchmarks.teacher learn --teacher local-dir:resnet18 --supernet RUN
        --names 26 8 --out results/reference/teacher/digits-64px.csv

`teach` trains a model of timm on the train split, and writes the folder of a teacher. `learn`
trains architectures of a truth set by the recipe of `benchmarks.alone`, four ways each: with fresh
weights and with those that RUN's supernet lends, without the teacher and with it; `--token-labels`
adds two. A row that is there is not made again; a training that was killed goes on.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.alone import (
    Training,
    accuracies,
    add_options,
    add_row,
    data_of,
    recipe,
    rows_of,
)
from nas.data import materialise, normalise
from nas.runs.folder import RunFolder
from nas.runs.run import trained_store
from nas.training.alone import train_alone
from nas.training.given_teacher import given_teacher, named
from nas.training.loop import Session, autocast, train
from nas.training.module_learner import ModuleLearner
from nas.training.settings import TrainingSettings
from nas.utilities.interrupt import StopRequest
from search_space import Architecture
from supernet import Network

COLUMNS = ("name", "hash", "seed", "steps", "start", "teacher", "search", "test", "seconds")
"""Of the CSV. `start` is `scratch` or `supernet`; `teacher` is `none`, `answers`, or `tokens` where
token labels came beside; `search` and `test` are the accuracies on those splits, 0 to 1; `seconds`
of one process, whatever ran beside."""


class Classifier(ModuleLearner):
    """A model of timm that learns from labels; a `nas.training.loop.Learner`."""

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The cross-entropy with smoothed labels."""
        with autocast(images.device):
            scores = self.module.train()(images)
        yield F.cross_entropy(scores.float(), labels, label_smoothing=0.1)


def teach(options: argparse.Namespace) -> None:
    """Train the model that is to be the teacher, write it down, and print its accuracy."""
    torch.manual_seed(0)
    data = data_of(options.data, options.size)
    model: nn.Module = timm.create_model(options.model, num_classes=data.num_classes)
    how = TrainingSettings(steps=options.steps, batch_size=64, lr=1e-3, seed=0)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=how.lr, weight_decay=how.weight_decay)
    for group in optimizer.param_groups:
        group["lr_scale"] = 1.0
    state = options.out.with_name(f".{options.out.name}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    train(
        Classifier(model, optimizer, clip_norm=how.clip_norm),
        Session(data=data, device=torch.device("cpu"), stop=StopRequest()),
        settings=how,
        state=state,
        identity={"model": options.model, **how.model_dump(mode="json")},
        on_step=lambda step, losses: None,
    )
    side = options.size
    seen = {"input_size": (3, side, side), "mean": data.mean, "std": data.std}
    names = {"label_names": data.class_names}
    save_for_hf(model, options.out, names, safe_serialization=True, data_config=seen)
    state.unlink(missing_ok=True)
    model.eval()
    for split in ("search", "test"):
        images, labels = materialise(getattr(data, split), limit=None, seed=0)
        with torch.no_grad():
            scores = [model(normalise(some, data.mean, data.std)) for some in images.split(250)]
        correct = int((torch.cat(scores).argmax(dim=1) == labels).sum())
        print(f"{options.model}, {options.steps} steps: {correct / len(labels):.2%} of {split}")


def learn(options: argparse.Namespace) -> None:
    """Make the rows that the table lacks."""
    known = {row["name"]: row["architecture"] for row in rows_of(options.truth)}
    teachers = ["none", "answers"] + ["tokens"] * options.token_labels
    options.out.parent.mkdir(parents=True, exist_ok=True)
    ways = product(options.names, range(options.seeds), ("scratch", "supernet"), teachers)
    for name, seed, start, teacher in ways:
        training = Training(name=name, architecture=Architecture.from_json(known[name]), seed=seed)
        key = {"seed": str(seed), "start": start, "teacher": teacher}
        key |= {"hash": training.architecture.hash, "steps": str(training.steps)}
        if any(key.items() <= row.items() for row in rows_of(options.out)):
            continue
        row = {"name": name, **key, **_learned(training, start, teacher, options)}
        add_row(options.out, COLUMNS, row)
        print(", ".join(f"{column} {row[column]}" for column in COLUMNS), flush=True)


def _learned(
    training: Training, start: str, teacher: str, options: argparse.Namespace
) -> Mapping[str, object]:
    data = data_of(options.data, options.size)
    asked = None if teacher == "none" else options.teacher
    given = given_teacher(asked, data, token_labels=teacher == "tokens")
    how = recipe(training, options).model_copy(update={"start": start, **named(given)})
    torch.manual_seed(training.seed)
    network = Network(
        training.architecture, num_classes=data.num_classes, drop_path_rate=how.drop_path
    )
    if start == "supernet":
        store = trained_store(RunFolder.existing(options.supernet), device="cpu")
        network.load_state_dict(store.extract(training.architecture).state_dict())
    state = options.out.with_name(
        f".{options.out.stem}-{'-'.join((*training.key, start, teacher))}.safetensors"
    )
    began = time.monotonic()
    train_alone(
        network,
        data=data,
        recipe=how,
        state=state,
        stop=StopRequest(),
        on_progress=lambda point: None,
        teacher=given,
    )
    seconds = round(time.monotonic() - began)
    state.unlink(missing_ok=True)
    return {"seconds": seconds, **accuracies(network, data)}


def main() -> None:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    teaching = commands.add_parser("teach", help="train a teacher")
    teaching.set_defaults(action=teach)
    teaching.add_argument("--model", default="resnet18", help="of timm")
    teaching.add_argument("--steps", type=int, default=1200, help="in batches of 64")
    learning = commands.add_parser("learn", help="train with it and without")
    learning.set_defaults(action=learn)
    learning.add_argument("--teacher", required=True, help="as nas retrain takes it")
    learning.add_argument("--supernet", required=True, help="the folder of a run")
    learning.add_argument("--names", nargs="+", required=True, help="in the truth set")
    learning.add_argument("--seeds", type=int, default=3)
    learning.add_argument("--token-labels", action="store_true")
    learning.add_argument(
        "--truth", type=Path, default=Path("results/reference/fidelity/tiny-300M.csv")
    )
    for command in (teaching, learning):
        add_options(command)
        command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.action(options)


if __name__ == "__main__":
    main()
