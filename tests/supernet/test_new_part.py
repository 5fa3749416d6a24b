"""What a new mixer, pooling and feed-forward take: a class or a row on each side, nothing else."""

import random
from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from samples import randomise
from torch import Tensor, nn
from torch.nn import functional as F

from search_space import Architecture, Cost, PatchStem, SearchSpace, Stage, StageChoices, total_cost
from search_space.operators import MapRole, Size, linear
from search_space.parts import FEED_FORWARDS, MIXERS, POOLINGS, Word
from search_space.parts.feed_forwards import FeedForwardOperator
from search_space.parts.mixers import MixerSpec
from search_space.parts.poolings import PoolingOperator
from search_space.segments import segments, space_segments
from supernet import Network, Store
from supernet.blocks import block, feed_forward, pooling
from supernet.blocks.layers import MapLinear
from supernet.blocks.layout import to_channels_first, to_channels_last
from supernet.counting import counted_cost


class Average(MixerSpec):
    """A linear layer of the mean over 3×3 tokens."""

    kind: Literal["average"] = "average"

    @classmethod
    def chosen(cls, *_: object) -> "Average":
        return cls()

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        return linear(width, width, size[0] * size[1])

    def label(self, width: int, role: MapRole) -> str:
        return f"average {width}"

    def words(self, sharing: int) -> list[Word]:
        return [Word("average", "A mean")]

    @property
    def table_cells(self) -> tuple[str, str]:
        return "average", "–"


class AveragePooling(PoolingOperator):
    kind = short = "average"

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        return linear(inputs, outputs, tokens)


class Gated(FeedForwardOperator):
    kind = short = "gated"

    @staticmethod
    def cost(width: int, hidden: int, tokens: int) -> Cost:
        return linear(width, hidden, tokens) * 2 + linear(hidden, width, tokens)


class AverageTokens(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.average = MapLinear(width, width)

    def forward(self, x: Tensor, maps: None) -> tuple[Tensor, None]:
        mean = F.avg_pool2d(to_channels_first(x), 3, stride=1, padding=1)
        return self.average(to_channels_last(mean)), None


class AveragePool(nn.Module):
    def __init__(self, inputs: int, outputs: int, conv_norm: str) -> None:
        super().__init__()
        self.linear = MapLinear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(to_channels_first(x), 2, ceil_mode=True)
        return self.linear(to_channels_last(mean))


class GatedFeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gated1, self.gate = MapLinear(width, hidden), MapLinear(width, hidden)
        self.gated2 = MapLinear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.gated2(self.gated1(x) * self.gate(x).sigmoid())


def read_tables_again() -> None:
    for model in (Stage, Architecture):
        model.model_rebuild(force=True)


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the search space knows of the new parts, alone."""
    with monkeypatch.context() as tables:
        tables.setitem(MIXERS, "average", Average)
        tables.setitem(POOLINGS, "average", AveragePooling)
        tables.setitem(FEED_FORWARDS, "gated", Gated)
        read_tables_again()
        yield
    read_tables_again()


@pytest.fixture
def modules(specs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new parts on both sides."""
    monkeypatch.setitem(block.MIXERS, Average, lambda _, stage, role: AverageTokens(stage.width))
    monkeypatch.setitem(pooling.POOLINGS, "average", AveragePool)
    monkeypatch.setitem(feed_forward.FEED_FORWARDS, "gated", GatedFeedForward)


def space_of_new_parts() -> SearchSpace:
    choices = {
        "aggregation": [{"kind": "full"}],
        "depth": (1, 2),
        "ratio": (1, 2),
        "mixer": ("local_global", "average"),
        "feed_forward": ("gated", "plain"),
    }
    later = {"width": (8, 12), "pooling": ("conv", "average"), "sharing": (1, 2)}
    return SearchSpace(
        name="new parts",
        stem=PatchStem(),
        head_dim=4,
        stages=(StageChoices(width=(8,), **choices), StageChoices(**choices, **later)),
    )


@pytest.mark.usefixtures("modules")
def test_new_parts_are_searched_costed_timed_and_extracted() -> None:
    space = SearchSpace.model_validate_json(space_of_new_parts().model_dump_json())
    store, rng = Store(space, num_classes=3), random.Random(0)
    randomise(store.state_dict())
    everything, summaries = space_segments(space, image_size=45), ""
    image = torch.randn(1, 3, 45, 45, generator=torch.Generator().manual_seed(0))
    for architecture in (space.sample(rng) for _ in range(30)):
        assert Architecture.from_json(architecture.to_json()) == architecture
        assert architecture in space
        summaries += f"{architecture.summary} | "
        network = store.extract(architecture)
        cost = total_cost(architecture, image_size=45, num_classes=3)
        assert cost == counted_cost(network, image)
        assert set(segments(architecture, image_size=45)) <= everything
        assert len(network.segment_starts()) == len(segments(architecture))
        with torch.no_grad():
            torch.testing.assert_close(network(image), store.subnet(architecture).eval()(image))
    for words in ("average ", "x1 average ", "gated 2", "full"):
        assert words in summaries


@pytest.mark.usefixtures("specs")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mixer": Average()}, "Average"),
        ({"feed_forward": {"kind": "gated"}}, "gated"),
    ],
)
def test_a_part_on_one_side_alone_fails_by_its_name(changes: dict[str, object], named: str) -> None:
    stage = Stage.model_validate({"width": 8, "depth": 1, **changes})
    with pytest.raises(KeyError, match=named):
        Network(Architecture(stem=PatchStem(), stages=(stage,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixer": {"kind": "average"}}, "average"),
        ({"pooling": "average"}, "'conv'"),
        ({"feed_forward": {"kind": "gated"}}, "'plain'"),
    ],
)
def test_an_unknown_part_is_refused_with_those_that_are_known(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Stage.model_validate({"width": 8, "depth": 1, **changes})
