"""Small networks that together have every kind of block."""

import pytest
import torch

from search_space import DESIGNS, Architecture
from supernet import Network

_NAMES = ("shunted_t", "lit_s", "pslt_tiny", "pvt_tiny", "plg_vit_t", "lw_plg_vit_a", "psvit_1d_ti")
SHORTENED = {
    design.timm_name: design.architecture.model_copy(
        update={
            "stages": tuple(
                stage.model_copy(update={"depth": min(stage.depth, stage.sharing)})
                for stage in design.architecture.stages[:: len(design.architecture.stages) - 1]
            )
        }
    )
    for design in DESIGNS
    if design.timm_name in _NAMES
}
"""Designs with every kind of block: first and last stage, with as few as show what they do."""

_FIRST, _LAST = SHORTENED["shunted_t"].stages
MIXED = SHORTENED["lw_plg_vit_a"].model_copy(
    update={
        "stages": (
            *SHORTENED["lw_plg_vit_a"].stages,
            _FIRST.model_copy(update={"pooling": _LAST.pooling}),
            _LAST,
        )
    }
)
"""The blocks of two of them in one network, which is then exported or compiled once."""

ALL_IN_TURN = pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(MIXED, id="mixed"),
        *(
            pytest.param(one, id=name, marks=pytest.mark.exhaustive)
            for name, one in SHORTENED.items()
        ),
    ],
)
"""A test of the mixed network, and with `--exhaustive` of each design."""


def random_network(architecture: Architecture) -> Network:
    """A network with weights other than those of an initialisation, which hide errors."""
    network = Network(architecture, num_classes=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.add_(0.2 * (noise if name.endswith("var") else noise - 0.5))
    return network.eval()
