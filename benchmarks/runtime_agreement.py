"""Whether other runtimes give torch's outputs, for every kind of block.

    python -m benchmarks.runtime_agreement --runtime onnx > results/reference/...
    python -m benchmarks.runtime_agreement --runtime compile --image-size 97

Takes every published design, and of each preset random architectures that together have every
choice of every gene. Stages are cut to as many blocks as share an attention map, which leaves every
kind of block, lender and borrower there (`--whole` leaves all). Weights are random, those of norms
too. Printed is the largest difference of any class score relative to the largest score; the exit
status is 1 where one is above `LARGEST_DIFFERENCE` or a network cannot be run.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from nas.export.file import LARGEST_DIFFERENCE
from nas.export.onnx import INPUT, OUTPUT, export_onnx, onnx_session
from nas.latency.conditions import LatencyConditions
from nas.latency.runtimes import prepare
from nas.utilities.errors import InputError
from search_space import DESIGNS, PRESETS, Architecture, SearchSpace
from supernet import Network

CANDIDATES = 64
"""Random architectures of which the one with the most choices still wanted is taken."""


def covering(space: SearchSpace, rng: random.Random) -> Iterator[Architecture]:
    """Few random architectures that together have every choice of every gene that has an effect."""
    seen: set[tuple[str, object]] = set()
    while True:
        drawn = {a: set(space.genotype(a).items()) for a in _drawn(space, rng)}
        best = max(drawn, key=lambda architecture: len(drawn[architecture] - seen))
        if drawn[best] <= seen:
            return
        seen |= drawn[best]
        yield best


def _drawn(space: SearchSpace, rng: random.Random) -> list[Architecture]:
    return [space.sample(rng) for _ in range(CANDIDATES)]


def shortened(architecture: Architecture) -> Architecture:
    """The same with as few blocks as show what each stage does."""
    stages = (
        stage.model_copy(update={"depth": min(stage.depth, stage.sharing)})
        for stage in architecture.stages
    )
    return architecture.model_copy(update={"stages": tuple(stages)})


def random_network(architecture: Architecture) -> Network:
    """A network with weights other than those of an initialisation, which hide errors."""
    torch.manual_seed(0)
    network = Network(architecture, num_classes=100)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape)
                tensor.add_(0.2 * (noise if name.endswith("var") else noise - 0.5))
    return network.eval()


def difference(architecture: Architecture, conditions: LatencyConditions) -> float:
    """The largest difference of the runtime's outputs to eager torch's, relative to the largest.

    Raises:
        InputError: If the runtime cannot run the network, or the difference is too large.
    """
    network = random_network(architecture)
    if conditions.runtime == "onnx":
        size = conditions.image_size
        images = torch.randn(conditions.batch_size, 3, size, size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(network, images, path, any_batch=False, tidy=False)
            (scores,) = onnx_session(path).run([OUTPUT], {INPUT: images.numpy()})
        with torch.inference_mode():
            outputs = [network(images), torch.from_numpy(scores)]
    else:
        outputs = [
            torch.as_tensor(prepare(network, conditions.model_copy(update={"runtime": runtime}))())
            for runtime in ("eager", conditions.runtime)
        ]
    found = float((outputs[1] - outputs[0]).abs().max() / outputs[0].abs().max())
    if not found <= LARGEST_DIFFERENCE["float32"]:
        raise InputError(f"output differs from torch's by {found:.1e}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", choices=("onnx", "compile"), default="onnx")
    parser.add_argument("--spaces", nargs="*", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--no-designs", action="store_true")
    parser.add_argument("--whole", action="store_true", help="leave the stages as deep as they are")
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    conditions = LatencyConditions(
        device="cpu",
        image_size=options.image_size,
        batch_size=2,
        runtime=options.runtime,
        threads=torch.get_num_threads(),
    )
    print(conditions)
    wanted = [] if options.no_designs else [(one.name, one.architecture) for one in DESIGNS]
    for name in options.spaces:
        found = covering(PRESETS[name], random.Random(0))
        wanted += [(f"{name} {architecture.hash}", architecture) for architecture in found]
    failed, largest = 0, 0.0
    for name, architecture in wanted:
        start = time.monotonic()
        try:
            value = difference(
                architecture if options.whole else shortened(architecture), conditions
            )
            largest = max(largest, value)
            outcome = f"{value:.1e}"
        except InputError as error:
            failed += 1
            outcome = f"FAILED: {error}"
        print(f"{name:24} {time.monotonic() - start:6.1f} s  {outcome}", flush=True)
    print(f"\n{len(wanted)} networks, {failed} failed; largest relative difference {largest:.1e}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
