"""Whether everything trains: each published design and random `base` architectures on the digits.

Each is trained alone for some steps in bf16, by default on few canvases again and again: what can
learn comes far below chance (a loss of 2.303) in as many steps as would hardly begin to tell fresh
ones apart. Printed are the mean loss of the first and of the last ten steps, and whether every loss
was finite.

    python benchmarks/trainability.py [--architectures 20] [--steps 100] [--images 128]
"""

import argparse
import itertools
import json
import math
import random
import statistics
import time

import torch
from torch.nn import functional as F

import nas  # noqa: F401  (tunes OpenMP before torch is loaded)
from nas.data import load_data, normalise, train_batches
from nas.training.loop import autocast
from nas.training.schedule import learning_rate
from nas.training.settings import TrainingSettings
from search_space import DESIGNS, PRESETS, Architecture
from supernet import Network

PEAK_RATE, CLIP_NORM = 2e-4, 5.0


def losses_of(
    architecture: Architecture, *, steps: int, batch_size: int, images: int, size: int
) -> list[float]:
    """The loss of every step of a training from fresh weights, on so many canvases (0: fresh)."""
    torch.manual_seed(0)
    data = load_data("digits", image_size=size, seed=0)
    network = Network(architecture, num_classes=data.num_classes).train()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    losses = []
    settings = TrainingSettings(steps=steps, batch_size=batch_size, lr=PEAK_RATE, seed=0)
    batches = train_batches(
        data, batch_size=batch_size, seed=0, first_step=0, steps=steps, workers=0
    )
    if images:
        batches = itertools.cycle(list(itertools.islice(batches, images // batch_size)))
    for step, (images_of_step, labels) in enumerate(itertools.islice(batches, steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        with autocast(torch.device("cpu")):
            logits = network(normalise(images_of_step, data.mean, data.std))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, default=20, help="random ones of `base`")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=128, help="canvases; 0 draws fresh ones")
    parser.add_argument("--size", type=int, default=64, help="pixels of the images")
    parser.add_argument("--shard", default="0/1", help="this part of so many, such as 0/2")
    options = parser.parse_args()
    part, parts = map(int, options.shard.split("/"))
    rng = random.Random(0)
    everything = [(design.name, design.architecture) for design in DESIGNS]
    everything += [
        (architecture.hash, architecture)
        for architecture in (PRESETS["base"].sample(rng) for _ in range(options.architectures))
    ]
    for name, architecture in itertools.islice(everything, part, None, parts):
        start = time.monotonic()
        losses = losses_of(
            architecture,
            steps=options.steps,
            batch_size=options.batch_size,
            images=options.images,
            size=options.size,
        )
        first, last = statistics.mean(losses[:10]), statistics.mean(losses[-10:])
        row = {
            "name": name,
            "summary": architecture.summary,
            "first": round(first, 3),
            "last": round(last, 3),
            "falls": last < first,
            "finite": all(map(math.isfinite, losses)),
            "seconds": round(time.monotonic() - start, 1),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
