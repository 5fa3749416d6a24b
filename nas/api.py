"""The functions that notebooks and scripts call; `import nas` has them all.

Keyword arguments are named as the flags of the command line are, `-` being `_`. Nothing heavy is
loaded before a function is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from nas.data import Augment, OwnDataset
    from nas.export.file import Format
    from nas.export.pretrained import Pretrained
    from nas.latency.conditions import DtypeName, RuntimeName
    from nas.latency.table import LatencyTable
    from nas.runs.deployment import Deployment
    from nas.runs.one_retraining import Retrained
    from nas.runs.run import Run
    from nas.training.recipes import RecipeName
    from search_space import SearchSpace


def search(
    *,
    budget: str | float,
    params: str | float | None = None,
    memory: str | float | None = None,
    latency: str | Sequence[str] | Mapping[str, str] = (),
    latency_table: Sequence[str | Path] = (),
    latency_batch: int = 1,
    latency_dtype: DtypeName = "float32",
    runtime: RuntimeName = "eager",
    data: str | Path | OwnDataset | None = None,
    space: str | SearchSpace | None = None,
    init: str | Path | None = None,
    teacher: str | None = None,
    token_labels: bool = False,
    supernet: Run | str | Path | None = None,
    image_size: int | None = None,
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
    sampler: str = "auto",
    strategy: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    train_workers: int = 1,
    ray_address: str | None = None,
    ray_wait: str = "5min",
    threads: int = 1,
    loader_workers: int | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    tensorboard: bool = False,
    progress: bool = True,
    **limits: str | float | None,
) -> Run:
    """Train a supernet, search it under hard limits, and export the best architectures.

    The same call again goes on where the last one stopped. Every argument but `progress` is a flag
    of `nas search`, which tells more of each.

    Args:
        budget: Limit on multiply-adds of one image at `image_size`: `"2GFLOPs"`.
        params: Limit on parameters: `"10M"`.
        memory: Limit on peak activation memory: `"64MB"`.
        latency: Limits on latency: `"15ms"`, or by device: `{"cuda": "2ms", "phone": "40ms"}`.
        latency_table: Files of latency tables.
        latency_batch: Images in the pass that is timed.
        latency_dtype: Data type of the network that is timed.
        runtime: What runs the network that is timed.
        data: `"digits"`, the default, `"fashion-mnist"`, a folder of class folders, a timm dataset,
            or your own torch datasets as a `nas.OwnDataset`.
        space: A preset's name, a JSON file, or a `SearchSpace`; by default `"base"`.
        init: An export, or an authors' checkpoint, of a design that is a member of the space: the
            supernet begins with its weights; or what timm gets: `"local-dir:FOLDER"`.
        teacher: A classifier of the same classes, from whose answers subnets and the short list
            learn as well: a model of timm, `"MODEL"` or `"MODEL:CHECKPOINT"`, or an export of ours,
            `"subnet:FOLDER"`.
        token_labels: Learn from its answers for each place of its last map, too.
        supernet: A run, or its folder, whose trained supernet is searched under these limits;
            nothing is trained. Data, space, sizes, `seed` and how it was trained are that run's;
            what contradicts them is refused.
        image_size: Pixels at which MACs and latency count; 224 by default.
        proxy_size: Pixels of training and evaluation; 64 for `digits` and where there is no GPU,
            else the image size.
        quick: Shrink everything: a look in two to four minutes.
        steps: Training steps of the supernet.
        epochs: The same, in passes over the train split.
        batch_size: Images in a step; by default 16 for digits and where there is no GPU, else 64.
        lr: Peak learning rate; by default 6e-4 for batches of 64, and for others in proportion to
            the root of their size.
        trials: Architectures to evaluate; with more of them a run that has ended goes on.
        search_images: Images of the search split that each is evaluated on.
        short_list: Architectures that are tried by training them alone, from the weights that they
            inherit, before one is called best; 0 for none.
        finalists: So many that stand first of these are trained from fresh weights, too, and ranked
            by that; 0 for none. By default as many as take at most half of all training steps,
            if these are four or more.
        strategy: How the supernet is trained: `"blockwise"`, the default, `"sandwich"` or
            `"single-path"`.
        sampler: Who proposes: `"surrogate"`, `"nsga2"`, `"tpe"` or `"random"`; `"auto"` is that
            which measures best.
        seed: Of everything random; 0 by default.
        device: `"cpu"`, `"cuda"` or `"cuda:N"`; `"cuda"` where there is one.
        workers: Ray actors that evaluate; 0 evaluates in this process, without Ray. What the search
            finds does not depend on it.
        train_workers: Processes that train the supernet together, by Ray Train.
        ray_address: A running Ray cluster: `"auto"`, `"HOST:PORT"`.
        ray_wait: How long a step waits where Ray has no room for it: `"90s"`, `"5min"`, `"2h"`.
        threads: CPU threads of one evaluation.
        loader_workers: Processes that load images.
        name: Of the run's folder below `results/`; by default it tells data, space and budget.
        out: The run's folder, if it is to be elsewhere.
        tensorboard: Write losses, accuracies and the hypervolume into the folder `tensorboard` in
            the run's, too.
        progress: Show what goes on.
        limits: On objectives that were added to `nas.objectives.objective.CLOSED_FORM`.

    Returns:
        The finished run.

    Raises:
        InputError: If something of it is wrong; a `ValueError` that names the argument.
        NothingFound: If no architecture could be evaluated, or all are too slow as measured.
        Interrupted: After Ctrl-C, SIGTERM or SIGHUP, when everything was saved.
    """
    asked = dict(locals())
    asked |= asked.pop("limits")
    del asked["progress"]
    from nas.runs.configure import configure
    from nas.runs.start import EXECUTION, WRITTEN, start

    command = f"nas.search({_given(search, asked)})"
    apart = {name: asked.pop(name) for name in (*EXECUTION, *WRITTEN)}
    return start(configure(**asked), command=command, console=_console(progress), **apart)


def open_run(path: str | Path) -> Run:
    """The run of a folder, finished or not.

    Args:
        path: The folder, as `results/<run>`.

    Raises:
        InputError: If there is no run in it.
    """
    from nas.runs.folder import RunFolder
    from nas.runs.run import Run

    return Run(RunFolder.existing(path))


def compare(*runs: Run | str | Path, out: str | Path = "comparison") -> pd.DataFrame:
    """Set runs beside each other: their fronts, their hypervolumes, and what was asked of them.

    Args:
        runs: Two or more, or their folders.
        out: Folder for `compare.html`, `runs.csv` and `fronts.csv`.

    Returns:
        A row for each run. Runs of another `group` have other data, or other sizes of images:
        their numbers say nothing beside each other.

    Raises:
        InputError: If there are fewer, or one of them has not searched.
    """
    from nas.report.comparison import runs_table
    from nas.runs.compare import compare as compare_runs

    given = [open_run(run) if isinstance(run, str | Path) else run for run in runs]
    return runs_table(compare_runs(given, Path(out)))


def retrain(
    run: Run | str | Path,
    *,
    top: int = 1,
    name: str = "retrain",
    start: str = "scratch",
    recipe: RecipeName | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | Sequence[float] | None = None,
    drop_path: float | None = None,
    augment: Augment | None = None,
    train_size: int | None = None,
    ema: float = 0.0,
    layer_decay: float = 1.0,
    validate: float = 0.0,
    class_weights: Literal["none", "balanced"] = "none",
    accumulate: int = 1,
    tensorboard: bool = False,
    teacher: str | None = None,
    token_labels: bool = False,
    seed: int = 0,
    device: str | None = None,
    workers: int = 0,
    ray_address: str | None = None,
    ray_wait: str = "5min",
    loader_workers: int | None = None,
    data: str | Path | OwnDataset | None = None,
    progress: bool = True,
) -> list[Retrained]:
    """Train the best architectures of a run's front alone, and test them.

    Args:
        run: A run, or its folder.
        top: How many architectures.
        name: Folder in the run's for this recipe's results.
        start: From fresh weights (`"scratch"`), from the exported ones (`"supernet"`), or from
            those of an earlier retraining, by its name (the flag `--from`).
        recipe: What those of the following are that are None: `"default"`; `"deit"` for the
            published recipe (Touvron et al., 2021, table 9); `"finetune"`, by default from an
            earlier retraining, for 30 epochs at a hundredth of its learning rate.
        steps: Training steps; by default so many that the network sees twice as many images as
            the supernet did.
        epochs: The same, in passes over the train split.
        batch_size: Images in a step; 64 by default.
        lr: Peak learning rate; 1e-3 by default. Of several each is tried, and what comes out lies
            in a folder of its own: `<name>-lr0.001`.
        drop_path: Stochastic depth; 0.05 by default.
        augment: `"light"` by default; `"full"` adds RandAugment, mixup, cutmix and erasing, for
            long trainings.
        train_size: Pixels of training; by default the run's proxy size.
        ema: Decay of a moving average of the weights, which is then what is measured and exported,
            such as 0.999; 0 for none.
        layer_decay: Learning rate of a layer relative to the one behind it; such as 0.75 where the
            training begins with good weights.
        validate: Share of each class of the train split that is held out, such as 0.1. The weights
            that are most accurate on it are what is measured and exported; 0 for the last ones.
        class_weights: `"balanced"` gives rare classes as much weight in the loss as frequent ones.
        accumulate: In how many parts, one after the other, a batch goes through the network: large
            batches need the memory of a part then.
        tensorboard: Write loss, learning rate and held-out accuracy by step into the folder
            `<name>/tensorboard` in the run's, too.
        teacher: A classifier from whose answers it learns as well, as in `search`.
        token_labels: Learn from its answers for each place of its last map, too.
        seed: Of weights, order and augmentation.
        device: By default that of the run.
        workers: How many networks are trained at a time, by Ray; 0 trains one after the other in
            this process, without Ray. Results don't depend on it, but for rounding.
        ray_address: A running Ray cluster: `"auto"`, `"HOST:PORT"`.
        ray_wait: How long there may be no room in Ray: `"90s"`, `"5min"`, `"2h"`.
        loader_workers: Processes that load images, of each training.
        data: Where the run's folder of images is now, if it was moved; of a run on a
            `nas.OwnDataset` those datasets again.
        progress: Show what goes on.

    Returns:
        Accuracies on the test split and costs of each, in the order of the ranks; for the first
        learning rate, then for the second, and so on.

    Raises:
        InputError: If something of it is wrong, or the run has exported nothing yet; when all
            others are trained, if a network's loss is no longer finite or its workers died.
        Interrupted: After Ctrl-C, SIGTERM or SIGHUP, when everything was saved.
    """
    asked = dict(locals())
    del asked["run"], asked["progress"]
    from nas.runs.retraining import retrain_run

    folder = (open_run(run) if isinstance(run, str | Path) else run).folder
    return retrain_run(folder, console=_console(progress), **asked)


def profile(
    space: str | SearchSpace = "base",
    *,
    device: str | None = None,
    image_size: int = 224,
    batch: int = 1,
    dtype: DtypeName = "float32",
    runtime: RuntimeName = "eager",
    threads: int | None = None,
    quick: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> LatencyTable:
    """Measure the latency table of a space on a device; let nothing else run there meanwhile.

    Args:
        space: A preset's name, a JSON file, or a `SearchSpace`.
        device: `"cpu"`, `"cuda"` or `"cuda:N"`; `"cuda"` where there is one.
        image_size: Pixels of the images.
        batch: Images in a pass.
        dtype: Data type of the networks.
        runtime: What runs them.
        threads: CPU threads; by default one per core.
        quick: As small as a run makes for itself.
        seed: Of the networks drawn.
        out: The table's file; None writes none.
        progress: Show what goes on.

    Raises:
        InputError: If something of it is wrong.
        Interrupted: After Ctrl-C, SIGTERM or SIGHUP.
    """
    asked = dict(locals())
    del asked["progress"]
    from nas.runs.latency_tables import profile_space

    return profile_space(console=_console(progress), **asked)


def export(
    network: str | Path,
    *,
    format: Format = "onnx",
    image_size: int | tuple[int, int] | None = None,
    flexible: bool = False,
    batch: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    pixels: bool = False,
    softmax: bool = False,
    opset: int | None = None,
    data: str | None = None,
    out: str | Path | None = None,
) -> Deployment:
    """Write an exported network as one file for other runtimes, compare its output, and time it.

    Args:
        network: A folder with architecture and weights: `best`, `front/<n>` or `retrain/<n>` of a
            run.
        format: `"onnx"`; `"torch-export"`, for `torch.export.load`; `"safetensors"`, weights alone.
        image_size: Pixels of the images that the file takes, or (height, width); by default those
            of the training.
        flexible: Take any multiples of 32 as height and width; ONNX, not networks with windows.
        batch: Images that the file takes at a time; None for any number.
        dtype: Of weights and scores.
        pixels: Take uint8 pixels from 0 to 255, and normalise them in the file.
        softmax: Give probabilities.
        opset: Version of ONNX's operators.
        data: Images to compare on, named as in `search`; by default those of the network's run.
        out: The file; by default `model.onnx`, `model.pt2` or `model.safetensors` in the folder.

    Raises:
        InputError: If something of it is wrong, or the file's output is not that of torch.
    """
    asked = dict(locals())
    from nas.runs.deployment import deploy

    if isinstance(image_size, int):
        asked["image_size"] = image_size, image_size
    return deploy(**asked)


def convert(file: str | Path, *, design: str, out: str | Path) -> Pretrained:
    """Write the network of an authors' checkpoint into a folder, as an export of ours.

    Args:
        file: The checkpoint, as torch or safetensors writes it.
        design: Of which published design it is, by the paper's name or timm's: `"shunted_t"`.
        out: The folder.

    Raises:
        InputError: If the design is unknown, or the file cannot be read or is of another design.
    """
    from nas.runs.conversion import convert

    return convert(file, design=design, out=out)


def _console(progress: bool) -> Console:
    from nas.utilities.progress import terminal

    return terminal(quiet=not progress)


def _given(function: Callable[..., object], values: Mapping[str, object]) -> str:
    """The arguments that differ from a function's defaults, as they would be typed."""
    defaults = inspect.signature(function).parameters
    given = {
        name: value
        for name, value in values.items()
        if name not in defaults or value != defaults[name].default
    }
    return ", ".join(f"{name}={_shown(value)}" for name, value in given.items())


def _shown(value: object) -> str:
    name = getattr(value, "name", None)  # of a space or a dataset, which are long
    return f"<{type(value).__name__} {name}>" if isinstance(name, str) else repr(value)
