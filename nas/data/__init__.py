"""From a user's data to batches of uint8 images.

`load_data` turns a name or a folder into three splits, `train_batches` draws reproducible training
batches from them, `materialise` reads a fixed split into memory, and `normalise` makes a network's
input of either.
"""

from nas.data.batches import materialise, normalise, train_batches
from nas.data.dataset import Augment, Data, Samples
from nas.data.load import BUILT_IN, DIGITS, hold_out, load_data
from nas.data.own_dataset import OwnDataset

__all__ = [
    "BUILT_IN",
    "DIGITS",
    "Augment",
    "Data",
    "OwnDataset",
    "Samples",
    "hold_out",
    "load_data",
    "materialise",
    "normalise",
    "train_batches",
]
