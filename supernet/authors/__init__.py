"""The published designs' checkpoints as their authors wrote them: their names, orders and layouts.

A file for each family says where in such a checkpoint each tensor of ours is; `checkpoint.py` reads
it by that.
"""

from supernet.authors.checkpoint import (
    LAYOUTS,
    checkpoint_filter_fn,
    converted,
    read_checkpoint,
    take_authors_names,
)

__all__ = ["LAYOUTS", "checkpoint_filter_fn", "converted", "read_checkpoint", "take_authors_names"]
