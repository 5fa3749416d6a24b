"""`retrain`: train the exported architectures alone."""

import argparse
from pathlib import Path

from nas.cli.arguments import (
    Commands,
    add_ray_cluster,
    add_teacher,
    batch,
    helpers,
    rates,
    say_how_to_go_on,
    seed,
    size,
    some,
    steps,
)
from nas.training.recipes import RECIPES


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "retrain",
        help="train the exported architectures alone",
        description="Train the best architectures of a run's front alone and measure them "
        "on the test split, beside the weights that were exported.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_retrain)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--top", type=some, default=1, help="how many architectures")
    parser.add_argument(
        "--name", default="retrain", help="folder in the run's for this recipe's results"
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="WEIGHTS",
        default="scratch",
        help="scratch: fresh weights; supernet: those that were exported; or the --name of an "
        "earlier retraining, to go on from its weights, such as at another --train-size",
    )
    parser.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="what holds where the flags below are not given; deit: the published one (Touvron et "
        "al., 2021, table 9), with 300 epochs, a learning rate of 5e-4 for batches of 512 and for "
        "others in proportion, 5 epochs of warm-up, full augmentation, each image three times in a "
        "row, drop path 0.1, no clipping; finetune, the default from an earlier retraining: the "
        "same with 30 epochs, a learning rate of 5e-6 and next to no weight decay",
    )
    parser.add_argument(
        "--steps",
        type=steps,
        help="training steps; by default so many that it sees twice as many images as the supernet",
    )
    parser.add_argument("--epochs", type=steps, help="the same, in passes over the train split")
    parser.add_argument("--batch-size", type=batch, help="images in a step; 64 by default")
    parser.add_argument(
        "--lr",
        metavar="RATE[,RATE...]",
        type=rates,
        help="peak learning rate, 1e-3 by default; of several, such as 1e-3,5e-4, each is tried, "
        "and what comes out lies in NAME-lr0.001/, NAME-lr0.0005/",
    )
    add_teacher(parser)
    parser.add_argument("--drop-path", type=float, help="stochastic depth, 0.05 by default")
    parser.add_argument(
        "--augment",
        choices=("light", "full"),
        help="light by default; full: RandAugment, mixup, cutmix and erasing, for long trainings",
    )
    parser.add_argument(
        "--train-size", type=size, help="pixels of training; by default the run's proxy size"
    )
    parser.add_argument(
        "--ema",
        metavar="DECAY",
        type=float,
        default=0.0,
        help="measure and export a moving average of the weights, such as 0.999; 0 for none",
    )
    parser.add_argument(
        "--layer-decay",
        metavar="RATE",
        type=float,
        default=1.0,
        help="learning rate of a layer relative to the one behind it, such as 0.75 for --from "
        "supernet",
    )
    parser.add_argument(
        "--validate",
        metavar="SHARE",
        type=float,
        default=0.0,
        help="hold out this share of the train split, such as 0.1, and export the weights that are "
        "most accurate on it; 0 for the last ones",
    )
    parser.add_argument(
        "--class-weights",
        choices=("none", "balanced"),
        default="none",
        help="balanced: rare classes weigh as much in the loss as frequent ones",
    )
    parser.add_argument(
        "--accumulate",
        metavar="N",
        type=batch,
        default=1,
        help="let a batch go through the network in so many parts, for want of memory",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write loss, learning rate and held-out accuracy by step into NAME/tensorboard/, too",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the run's images are now, if they were moved"
    )
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--device", help="cpu, cuda or cuda:N; by default that of the run")
    parser.add_argument(
        "--workers",
        type=helpers,
        default=0,
        help="how many networks are trained at a time, by Ray; 0 trains one after the other in "
        "this process",
    )
    add_ray_cluster(parser)
    parser.add_argument("--loader-workers", type=helpers, help="processes that load images")


def _retrain(options: argparse.Namespace) -> None:
    from nas.runs.folder import RunFolder
    from nas.runs.retraining import retrain_run
    from nas.utilities.interrupt import Interrupted
    from nas.utilities.progress import terminal

    asked = vars(options).copy()
    folder = RunFolder.existing(asked.pop("run"))
    del asked["action"], asked["command_line"], asked["methods"]
    console = terminal()
    try:
        retrain_run(folder, console=console, **asked)
    except Interrupted as interrupted:
        say_how_to_go_on(options, console, interrupted)
