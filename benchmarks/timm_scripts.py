"""Run timm's own train.py and validate.py, as they are, on our models.

    python -m benchmarks.timm_scripts ../pytorch-image-models --out scripts.txt

The folder is a checkout of timm's repository. Twenty images of two classes are made up, and an
exported network; every row is one run of a script through `WRAPPER` with options that people use.
It says `ok`, or the last line that the script printed.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from search_space import PRESETS
from supernet import ExportedNetwork, Network, save_exported

WRAPPER = """\
import runpy, sys
import supernet  # registers its models with timm
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""

SIDE, CLASSES = 64, ("round", "square")
COMMON = ("images", "--device", "cpu", "--workers", "0", "-b", "4")
TRAINING = ("--epochs", "1", "--warmup-epochs", "0", "--opt", "adamw", "--output", "out")
EXPORT = ("--model", "subnet", "--model-kwargs", "architecture=best")
DESIGN = ("--model", "pslt_tiny", "--num-classes", "2", "--img-size", str(SIDE))

OPTIONS: tuple[tuple[str, ...], ...] = (
    ("--pretrained",),
    ("--layer-decay", "0.75"),
    ("--model-ema",),
    ("--mixup", "0.8", "--cutmix", "1.0", "--smoothing", "0.1"),
    ("--drop-path", "0.1"),
    ("--grad-checkpointing",),
    ("--channels-last",),
    ("--amp", "--amp-dtype", "bfloat16"),
    ("--aug-splits", "2", "--split-bn", "--jsd-loss", "--aa", "rand-m9-mstd0.5-inc1"),
    ("--gp", "avg"),
    ("--torchcompile", "aot_eager"),
    ("--head-init-scale", "0.001"),
    ("--pretrained", "--input-size", "1", str(SIDE), str(SIDE)),
    ("--resume", "out/first/last.pth.tar", "--epochs", "2"),
    ("--drop", "0.1"),
    ("--torchscript",),
)


def make_images(folder: Path) -> None:
    """Ten images of each class in `train/` and in `validation/`."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(10):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


def make_export(folder: Path) -> None:
    """A small network with fresh weights, as a run exports it."""
    folder.mkdir()
    about = ExportedNetwork(
        num_classes=2, image_size=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, class_names=CLASSES
    )
    save_exported(folder, Network(PRESETS["nano"].scaled(0.0), num_classes=2), about)


def rows() -> Iterator[tuple[str, ...]]:
    """The script and the arguments of each run."""
    yield ("train.py", *EXPORT, "--experiment", "first")
    for options in OPTIONS:
        yield ("train.py", *EXPORT, *options)
    yield ("validate.py", *EXPORT, "--pretrained")
    yield ("validate.py", *EXPORT, "--checkpoint", "out/first/last.pth.tar")
    yield ("train.py", *DESIGN, "--experiment", "design")
    yield ("train.py", *DESIGN, "--grad-checkpointing", "--layer-decay", "0.75")
    yield ("validate.py", *DESIGN, "--checkpoint", "out/design/last.pth.tar")


def run(scripts: Path, folder: Path, row: tuple[str, ...]) -> str:
    """What one run came to."""
    script, *arguments = row
    training = TRAINING if script == "train.py" else ()
    command = [sys.executable, "with_subnets.py", str(scripts / script), *COMMON, *training]
    result = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    printed = (result.stderr.strip() or result.stdout.strip() or "nothing").splitlines()
    return printed[-1] if result.returncode else "ok"


def main() -> None:
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scripts", type=Path, help="folder with timm's train.py and validate.py")
    parser.add_argument("--out", type=Path, help="a file for the table")
    parser.add_argument("--only", default="", help="only rows that have this in their text")
    options = parser.parse_args()
    lines = [f"timm {timm.__version__}, torch {torch.__version__}"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_images(folder / "images")
        make_export(folder / "best")
        (folder / "with_subnets.py").write_text(WRAPPER)
        for row in rows():
            if options.only in " ".join(row):
                start = time.monotonic()
                outcome = run(options.scripts.resolve(), folder, row)
                lines.append(f"{time.monotonic() - start:5.0f} s  {' '.join(row)}: {outcome}")
                print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
