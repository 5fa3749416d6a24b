"""Every part has its row on both sides: what is known of it, and the module that does it."""

import pytest
import torch
from samples import randomise
from torch import nn
from torch.nn import functional as F

from search_space import DepthwiseConvolution, PatchStem
from search_space.parts import AGGREGATIONS, FEED_FORWARDS, MIXERS, POOLINGS, STEMS
from supernet.blocks import block, feed_forward, local_global, pooling, stems
from supernet.blocks.depthwise_mixer import DepthwiseMixer


def test_poolings_and_feed_forwards_are_those_of_the_search_space() -> None:
    assert pooling.POOLINGS.keys() == POOLINGS.keys()
    assert feed_forward.FEED_FORWARDS.keys() == FEED_FORWARDS.keys()


def test_stems_aggregations_and_mixers_are_those_of_the_search_space() -> None:
    assert set(stems.STEMS) == set(STEMS.values())
    assert set(local_global.AGGREGATIONS) == set(AGGREGATIONS.values())
    mixing = {spec for spec in MIXERS.values() if spec.mixes}
    assert set(block.WHOLE_BLOCKS) == {spec for spec in mixing if spec.is_whole_block}
    assert set(block.MIXERS) == {spec for spec in mixing if not spec.is_whole_block}


@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("grad", [True, False])
def test_the_depthwise_mixer_is_three_convolutions_with_norms(kernel_size: int, grad: bool) -> None:
    mixer = DepthwiseMixer(DepthwiseConvolution(kernel_size=kernel_size), 12, "batch").eval()
    randomise(mixer.state_dict())
    x = torch.randn(2, 9, 5, 12, generator=torch.Generator().manual_seed(0))

    def convolved(y: torch.Tensor, weight: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        groups = 12 if weight.shape[1] == 1 else 1
        y = F.conv2d(y, weight, padding=weight.shape[-1] // 2, groups=groups)
        assert isinstance(norm, nn.BatchNorm2d)
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    y = x.permute(0, 3, 1, 2)
    y = convolved(y, mixer.pointwise1.weight[..., None, None], mixer.norm1).relu()
    y = convolved(y, mixer.depthwise.weight, mixer.norm2).relu()
    y = convolved(y, mixer.pointwise2.weight[..., None, None], mixer.norm3)
    with torch.set_grad_enabled(grad):
        found, maps = mixer(x, None)
    assert maps is None
    torch.testing.assert_close(found, y.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="6 is even"):
        DepthwiseConvolution(kernel_size=6)


def test_a_kernel_is_as_large_as_a_window_or_a_token_larger() -> None:
    from search_space import PRESETS, SearchSpace, StageChoices

    choices = StageChoices(
        depth=(1,),
        width=(32,),
        mixer=("depthwise", "local_global"),
        aggregation=PRESETS["nano"].stages[0].aggregation,
        ratio=(2,),
    )
    space = SearchSpace(name="own", stem=PatchStem(), stages=(choices,), window=6)
    space = SearchSpace.model_validate_json(space.model_dump_json())
    kernels = {
        a.stages[0].mixer.kernel_size
        for a in space.enumerate()
        if isinstance(a.stages[0].mixer, DepthwiseConvolution)
    }
    assert kernels == {7}
