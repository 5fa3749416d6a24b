"""The supernet: one tensor for each name that a parameter of the space can have.

A subnet is an ordinary `Network` whose parameters are views into the store: the prefix, in every
dimension, that its shapes need. Its gradients are views into the store's gradients, so that
backward accumulates in place and one optimizer steps the store. Every subnet so runs the very code
that its exported network runs, and extracting one is a copy.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from search_space import Architecture, SearchSpace
from search_space.coverage import corners as corner_architectures
from supernet.blocks.parameter_settings import ParameterSetting
from supernet.network import Network, skeleton

Shape = tuple[int, ...]

CACHED_SUBNETS = 16
"""How many subnets' modules a store keeps; building one takes some 30 ms."""


class Store:
    """The shared weights of a search space.

    Args:
        space: Whose architectures the store can serve.
        num_classes: Outputs of every subnet's classifier.
        in_chans: Channels of the image.
        device: Where the weights live.
        seed: Of the initial weights.
        draw: Whether to draw them; else they are not a number, until others are loaded.
        weights: If given, the store holds these very tensors instead of fresh ones and has no
            gradients: for evaluation alone, at once and without a copy.

    Raises:
        ValueError: If the given weights are not those of the space.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        num_classes: int,
        in_chans: int = 3,
        device: torch.device | str = "cpu",
        seed: int = 0,
        draw: bool = True,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.space = space
        self.num_classes, self.in_chans = num_classes, in_chans
        self.device = torch.device(device)
        self.parameters: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self._subnets: OrderedDict[str, Network] = OrderedDict()
        corners = [self._skeleton(corner) for corner in corner_architectures(space)]
        self.parameter_settings: dict[str, ParameterSetting] = {}
        for network in corners:
            self.parameter_settings.update(network.parameter_settings())
        if weights is None:
            self._allocate(corners)
            if draw:
                self._initialise(corners, seed)
        else:
            buffers = _buffer_shapes(corners)
            _check_shapes(_parameter_shapes(corners) | buffers, weights)
            self.buffers = {name: weights[name] for name in buffers}
            self.parameters = {name: t for name, t in weights.items() if name not in buffers}

    def subnet(self, architecture: Architecture) -> Network:
        """The network of an architecture, of views into this store.

        The module is cached: its train or eval mode is the caller's to set before each use. Never
        set its gradients to None, or they come loose from the store.

        Raises:
            KeyError: If the architecture has a parameter that the store lacks.
            ValueError: If it has one that is larger than the store's.
        """
        key = architecture.hash
        if key in self._subnets:
            self._subnets.move_to_end(key)
            return self._subnets[key]
        network = self._bound(self._skeleton(architecture))
        self._subnets[key] = network
        if len(self._subnets) > CACHED_SUBNETS:
            self._subnets.popitem(last=False)
        return network

    def _bound(self, network: Network) -> Network:
        """A skeleton, given views into this store."""
        for module_name, module in network.named_modules():
            prefix = f"{module_name}." if module_name else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    full_name, shape = prefix + name, tuple(parameter.shape)
                    view = nn.Parameter(_prefix(self.parameters, full_name, shape))
                    if self.gradients:
                        view.grad = _prefix(self.gradients, full_name, shape)
                    module._parameters[name] = view
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = _prefix(
                        self.buffers, prefix + name, tuple(buffer.shape)
                    )
        return network

    def extract(self, architecture: Architecture) -> Network:
        """The stand-alone network of an architecture, its weights copied, in eval mode."""
        views = self.subnet(architecture).state_dict()
        network = self._skeleton(architecture)
        network.load_state_dict(
            {
                name: view.clone(memory_format=torch.contiguous_format)
                for name, view in views.items()
            },
            assign=True,
        )
        return network.requires_grad_(True).eval()

    def begin_with(self, network: Network) -> None:
        """Overwrite what the network's architecture uses of the store by the network's weights.

        Raises:
            KeyError: If the architecture has a parameter that the store lacks.
            ValueError: If it has one that is larger than the store's.
        """
        views = self.subnet(network.architecture).state_dict()
        for name, tensor in lent_weights(network, self.num_classes).items():
            views[name].copy_(tensor)

    def state_dict(self) -> dict[str, Tensor]:
        """Every weight and buffer by name: the tensors themselves, not copies."""
        return {**self.parameters, **self.buffers}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite the weights in place, so that the views of live subnets stay valid.

        Raises:
            ValueError: If a name is missing or unknown, or a shape differs.
        """
        own = self.state_dict()
        _check_shapes({name: tuple(tensor.shape) for name, tensor in own.items()}, state)
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def numel(self) -> int:
        """Number of shared weights."""
        return sum(tensor.numel() for tensor in self.parameters.values())

    def _skeleton(self, architecture: Architecture) -> Network:
        return skeleton(architecture, num_classes=self.num_classes, in_chans=self.in_chans)

    def _allocate(self, corners: list[Network]) -> None:
        """Give every name its largest shape over the corners."""
        # NaN shows in any output if the initialisation below should ever miss a weight.
        for name, shape in _parameter_shapes(corners).items():
            self.parameters[name] = torch.full(shape, float("nan"), device=self.device)
            self.gradients[name] = torch.zeros(shape, device=self.device)
        dtypes = {name: b.dtype for network in corners for name, b in network.named_buffers()}
        for name, shape in _buffer_shapes(corners).items():
            self.buffers[name] = torch.zeros(shape, dtype=dtypes[name], device=self.device)

    def _initialise(self, corners: list[Network], seed: int) -> None:
        """Draw every weight from `seed`, by the networks' own rules, at its largest shape.

        The corners become views into this store.
        """
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(seed)
            done: dict[str, Shape] = {}
            for corner in corners:
                shapes = {name: tuple(p.shape) for name, p in corner.named_parameters()}
                if any(
                    _largest(done, name, shape) != done.get(name) for name, shape in shapes.items()
                ):
                    self._bound(corner).init_weights()
                    done |= {name: _largest(done, name, shape) for name, shape in shapes.items()}
        for name, tensor in self.parameters.items():
            if tensor.isnan().any():
                raise AssertionError(
                    f"{name} was not drawn: no corner of space {self.space.name!r} covers it, or "
                    "its module says nothing of its initial weights"
                )


def lent_weights(network: Network, num_classes: int) -> dict[str, Tensor]:
    """The tensors of a network that one for so many classes can begin with.

    They are all, but for a classifier of another number of classes.
    """
    same_task = network.num_classes == num_classes
    state = network.state_dict()
    return {name: t for name, t in state.items() if same_task or not name.startswith("head.")}


def count_shared_weights(space: SearchSpace, *, num_classes: int, in_chans: int = 3) -> int:
    """Number of shared weights of a space, by shapes alone: a store takes far longer, and memory.

    Args:
        space: Whose weights to count.
        num_classes: Outputs of every subnet's classifier.
        in_chans: Channels of the image.
    """
    corners = [
        skeleton(corner, num_classes=num_classes, in_chans=in_chans)
        for corner in corner_architectures(space)
    ]
    return sum(math.prod(shape) for shape in _parameter_shapes(corners).values())


def _parameter_shapes(corners: Sequence[Network]) -> dict[str, Shape]:
    """The largest shape over the corners of every parameter, by name."""
    shapes: dict[str, Shape] = {}
    for network in corners:
        for name, parameter in network.named_parameters():
            shapes[name] = _largest(shapes, name, tuple(parameter.shape))
    return shapes


def _buffer_shapes(corners: Sequence[Network]) -> dict[str, Shape]:
    """The largest shape over the corners of every buffer, by name."""
    shapes: dict[str, Shape] = {}
    for network in corners:
        for name, buffer in network.named_buffers():
            shapes[name] = _largest(shapes, name, tuple(buffer.shape))
    return shapes


def _check_shapes(wanted: Mapping[str, Shape], given: Mapping[str, Tensor]) -> None:
    """Refuse the weights of another supernet.

    Raises:
        ValueError: If a name is missing or unknown, or a shape differs.
    """
    if wrong := sorted(wanted.keys() ^ given.keys()):
        raise ValueError(f"weights of another supernet: {wrong[0]} is missing or unknown")
    for name, shape in wanted.items():
        if shape != tuple(given[name].shape):
            raise ValueError(
                f"weights of another supernet: {name} has shape {list(given[name].shape)}, "
                f"not {list(shape)}"
            )


def _largest(shapes: Mapping[str, Shape], name: str, shape: Shape) -> Shape:
    """A shape and the one known by that name, whichever is larger in each dimension.

    Raises:
        ValueError: If they have different numbers of dimensions: two parts of one name.
    """
    known = shapes.get(name, shape)
    if len(known) != len(shape):
        raise ValueError(f"{name} has the shapes {list(known)} and {list(shape)}: no prefix")
    return tuple(map(max, known, shape))


def _prefix(tensors: Mapping[str, Tensor], name: str, shape: Shape) -> Tensor:
    tensor = tensors[name]
    for dimension, size in enumerate(shape):
        if size > tensor.shape[dimension]:
            raise ValueError(f"{name} of shape {list(shape)} exceeds {list(tensor.shape)}")
        if size < tensor.shape[dimension]:
            tensor = tensor.narrow(dimension, 0, size)
    return tensor
