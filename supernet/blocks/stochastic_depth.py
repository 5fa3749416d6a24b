"""Stochastic depth: residual branches that training leaves out by chance (Huang et al., 2016)."""

from timm.layers import DropPath
from torch import nn


def build_drop_path(rate: float) -> nn.Module:
    """The drop path of one residual branch, which leaves out so large a share of the images.

    Each branch has one of its own, so that a hook at it sees one place of the network.
    """
    return DropPath(rate) if rate else nn.Identity()
