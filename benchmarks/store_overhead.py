"""What sharing weights costs: a subnet of the store against its own extracted network.

For sampled `base` architectures, evaluation and a bf16 training step (forward, backward, gradients
zeroed in place) are timed on the same inputs, in turn, and the ratio of medians is printed.

    python benchmarks/store_overhead.py [--architectures 12] [--repeats 15]
"""

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch.nn import functional as F

import nas  # noqa: F401  (tunes OpenMP before torch is loaded)
from nas.training.accuracy import EVALUATION_BATCH
from nas.training.loop import autocast
from nas.utilities.devices import chip_name
from search_space import PRESETS, total_cost
from supernet import Network, Store


def timed(function: Callable[[], None]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def evaluation(network: Network, images: torch.Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        network.eval()
        with autocast(torch.device("cpu")):
            network(images)

    return run


def training_step(
    network: Network, images: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    def run() -> None:
        network.train()
        with autocast(torch.device("cpu")):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        torch._foreach_zero_([p.grad for p in network.parameters() if p.grad is not None])

    return run


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32, help="images in a training step")
    parser.add_argument("--evaluation-batch", type=int, default=EVALUATION_BATCH)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*gradient layout contract.*")

    space, rng = PRESETS["base"], random.Random(0)
    store = Store(space, num_classes=10)
    images = torch.randn(options.batch, 3, options.size, options.size)
    evaluated = torch.randn(options.evaluation_batch, 3, options.size, options.size)
    labels = torch.randint(0, 10, (options.batch,))
    ratios: dict[str, list[float]] = {"evaluation": [], "training": []}
    for _ in range(options.architectures):
        architecture = space.sample(rng)
        pair = store.subnet(architecture), store.extract(architecture)
        row: dict[str, object] = {
            "hash": architecture.hash,
            "macs_at_224": total_cost(architecture, num_classes=10).macs,
        }
        for kind, ratio in ratios.items():
            runs = [
                evaluation(network, evaluated)
                if kind == "evaluation"
                else training_step(network, images, labels)
                for network in pair
            ]
            for run in runs * 2:  # warm-up
                run()
            times: list[list[float]] = [[], []]
            for repeat in range(options.repeats):
                for which in (0, 1) if repeat % 2 else (1, 0):
                    times[which].append(timed(runs[which]))
            subnet, extracted = (statistics.median(t) for t in times)
            ratio.append(subnet / extracted)
            row[kind] = {
                "subnet_ms": round(subnet * 1e3, 2),
                "extracted_ms": round(extracted * 1e3, 2),
                "ratio": round(subnet / extracted, 4),
            }
        print(json.dumps(row), flush=True)
    summary = {
        "chip": chip_name("cpu"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch": options.batch,
        "evaluation_batch": options.evaluation_batch,
        "size": options.size,
        "repeats": options.repeats,
        **{
            kind: {"median_ratio": round(statistics.median(r), 4), "max_ratio": round(max(r), 4)}
            for kind, r in ratios.items()
        },
    }
    print(json.dumps(summary), file=sys.stdout)


if __name__ == "__main__":
    main()
