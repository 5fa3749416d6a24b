"""The closed-form cost against counts of the built network, at three image sizes.

Parameters, MACs, activations and largest working sets of random architectures of every preset, and
of every published design, are held against what is counted while the network runs on the `meta`
device: MACs by torch's FlopCounterMode, elements by a dispatch mode. Of the first `--fvcore`
architectures of each space fvcore, which reads a trace of the network on the CPU, counts MACs and
activations as well: some two seconds for each at each size.

Before that the closed form is timed alone, in CPU time of one core: on 10,000 architectures with
nothing in its caches (cold), then on 10,000 others (warm); of the designs, on all and then on
copies of them. The exit status is 1 where anything disagrees.

    python benchmarks/cost_agreement.py [--architectures 300] [--fvcore 5] [--processes 2]
"""

import argparse
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch

from search_space import DESIGNS, PRESETS, Architecture, total_cost
from supernet.counting import counted_cost, fvcore_activations, fvcore_macs
from supernet.network import skeleton

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((224, 224), (64, 64), (45, 61))

CLASSES = 1000
TIMED = 10_000


def disagreements(architecture: Architecture, *, fvcore: bool) -> list[tuple[Size, str]]:
    """What is counted otherwise than the closed form says: size, and the two figures."""
    found: list[tuple[Size, str]] = []
    costs = {size: total_cost(architecture, image_size=size, num_classes=CLASSES) for size in SIZES}
    network = skeleton(architecture, num_classes=CLASSES).eval()
    for size, cost in costs.items():
        counted = counted_cost(network, torch.zeros(1, 3, *size, device="meta"))
        if cost != counted:
            found.append((size, f"closed form {cost}, counted {counted}"))
    if not fvcore:
        return found
    network.to_empty(device="cpu")  # fvcore computes what it traces
    for size, cost in costs.items():
        image = torch.zeros(1, 3, *size)
        with torch.no_grad():
            traced = fvcore_macs(network, image), fvcore_activations(network, image)
        if (cost.macs, cost.activations) != traced:
            found.append((size, f"closed form {cost}, fvcore's MACs and activations {traced}"))
    return found


def microseconds(architectures: Sequence[Architecture], size: Size) -> float:
    """CPU time of the closed form for one architecture."""
    start = time.process_time()
    for architecture in architectures:
        total_cost(architecture, image_size=size, num_classes=CLASSES)
    return (time.process_time() - start) / len(architectures) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, default=300, help="of each preset")
    parser.add_argument("--fvcore", type=int, default=5, help="of them, as many as fvcore counts")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()

    counted: dict[str, list[Architecture]] = {}
    times: dict[tuple[str, Size], tuple[float, float]] = {}
    designs = [design.architecture for design in DESIGNS]
    for name in (*PRESETS, "designs"):
        rng = random.Random(0)
        if name == "designs":
            counted[name] = designs
            cold, warm = designs, [one.model_copy(deep=True) for one in designs]
        else:
            space = PRESETS[name]
            counted[name] = [space.sample(rng) for _ in range(options.architectures)]
            cold, warm = ([space.sample(rng) for _ in range(TIMED)] for _ in range(2))
        for size in SIZES:
            times[name, size] = microseconds(cold, size), microseconds(warm, size)

    wrong: Counter[tuple[str, Size]] = Counter()
    with ProcessPoolExecutor(
        options.processes, get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        for name, architectures in counted.items():
            traced, rest = architectures[: options.fvcore], architectures[options.fvcore :]
            results = [
                *pool.map(partial(disagreements, fvcore=True), traced),
                *pool.map(partial(disagreements, fvcore=False), rest, chunksize=4),
            ]
            for architecture, found in zip(architectures, results, strict=True):
                for size, what in found:
                    wrong[name, size] += 1
                    print(f"{name} {architecture.hash} at {size}: {what}", file=sys.stderr)

    heads = ("space", "size", "architectures", "by fvcore", "disagreements", "cold µs", "warm µs")
    widths = [max(len(head), 7) + 2 for head in heads]
    print("".join(head.rjust(width) for head, width in zip(heads, widths, strict=True)))
    for (name, size), (cold_time, warm_time) in times.items():
        total = len(counted[name])
        row = (
            name,
            "x".join(map(str, size)),
            total,
            min(options.fvcore, total),
            wrong[name, size],
            f"{cold_time:.1f}",
            f"{warm_time:.1f}",
        )
        print("".join(str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(json.dumps({"python": platform.python_version(), "torch": torch.__version__}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
