"""Scores that cost no training: do they rank the architectures of a truth set?

Each is computed on networks with fresh weights and one batch of the train split, and averaged over
a few seeds of both. The table has a column for each, and `fidelity.py` holds it against the truth.

    python -m benchmarks.zero_cost --truth results/reference/fidelity/tiny-300M.csv --out SCORES
    python -m benchmarks.fidelity judge --truth results/reference/fidelity/tiny-300M.csv \
        --scores SCORES

The scores, larger is better:

- `gradient`: norm of the gradient of the loss (Abdelfattah et al., Zero-Cost Proxies, section 3.2).
- `snip`: sum over weights of |w · dL/dw| (Lee et al., SNIP, section 4).
- `synflow`: the same product for the network of absolute weights and an image of ones, and the sum
  of its outputs in the place of the loss (Tanaka et al., SynFlow, section 5), as a logarithm.
- `naswot`: log determinant of how many units behind a ReLU or GELU agree in sign between each two
  images of the batch (Mellor et al., NAS without Training, section 3).
- `loss`: of one batch before any step, negative. It knows nothing: what a score has by chance.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.alone import add_options, data_of
from benchmarks.fidelity import Truth
from nas.data import Data, normalise, train_batches
from search_space import Architecture
from supernet import Network

SEEDS = 3
BATCH = 64

_aten = torch.ops.aten
ACTIVATIONS = {_aten.gelu.default, _aten.gelu_.default, _aten.relu.default, _aten.relu_.default}


class Signs(TorchDispatchMode):
    """Counts, for each two images of a batch, the units of its activations that agree in sign."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.agree = torch.zeros(images, images)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in ACTIVATIONS and args[0].numel() % self.images == 0:
            code = (args[0].detach().reshape(self.images, -1) > 0).float()
            self.agree += code @ code.T + (1 - code) @ (1 - code).T
        return func(*args, **(kwargs or {}))


def scores(architecture: Architecture, data: Data, *, seed: int, size: int) -> dict[str, float]:
    """All scores of one network with fresh weights, for one batch."""
    torch.manual_seed(seed)
    network = Network(architecture, num_classes=data.num_classes).train()
    images, labels = next(iter(train_batches(data, batch_size=BATCH, seed=seed, steps=1)))
    inputs = normalise(images, data.mean, data.std)

    with torch.no_grad(), Signs(len(inputs)) as signs:
        network(inputs)
    _, naswot = torch.linalg.slogdet(signs.agree.double())

    loss = F.cross_entropy(network(inputs), labels)
    loss.backward()
    gradient = _total(network, lambda w, g: g.square().sum()) ** 0.5
    snip = _total(network, lambda w, g: (w * g).abs().sum())

    network.eval().zero_grad()
    network = network.double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.abs_()
    network(torch.ones(1, 3, size, size, dtype=torch.float64)).sum().backward()
    synflow = _total(network, lambda w, g: (w * g).abs().sum())
    return {
        "gradient": gradient,
        "snip": snip,
        "synflow": float(torch.tensor(synflow).log()),
        "naswot": float(naswot),
        "loss": -loss.item(),
    }


def _total(network: Network, of: Callable[[Tensor, Tensor], Tensor]) -> float:
    """A sum over the weights that have a gradient."""
    return float(sum(of(w.detach(), w.grad) for w in network.parameters() if w.grad is not None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=540)
    parser.add_argument("--out", type=Path, required=True)
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = data_of(options.data, options.size)
    rows = []
    for architecture in Truth.load(options.truth, steps=options.steps).architectures:
        found = pd.DataFrame(
            [scores(architecture, data, seed=seed, size=options.size) for seed in range(SEEDS)]
        )
        rows.append({"hash": architecture.hash, **found.mean().to_dict()})
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(options.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
