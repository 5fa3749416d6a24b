"""Blocks of a network, one file per idea.

Inside a network features are channels-last maps of shape (B, H, W, C): linear layers and layer
norms read them as they lie, and `to_channels_first` hands convolutions a view in the channels-last
memory format, so that nothing is copied between the two. A stem or pooling whose convolution may
have left the channels first in memory ends in `contiguous()`: a sum takes on the memory layout of
its first term, so that otherwise every map of the stage would have it.
"""
