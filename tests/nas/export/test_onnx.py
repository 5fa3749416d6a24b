from pathlib import Path

import pytest
import torch
from shortened import ALL_IN_TURN, random_network
from torch import Tensor, nn
from torch.nn import functional as F

from nas.export.onnx import INPUT, OUTPUT, export_onnx, onnx_session
from nas.utilities.errors import InputError
from search_space import Architecture
from supernet.blocks.global_attention import adaptive_max_pool


def difference(path: Path, network: nn.Module, images: Tensor) -> float:
    """Of a file's output to torch's, relative to the largest output."""
    (scores,) = onnx_session(path).run([OUTPUT], {INPUT: images.numpy()})
    with torch.inference_mode():
        expected = network(images)
    return float((torch.from_numpy(scores) - expected).abs().max() / expected.abs().max())


@pytest.mark.slow
@ALL_IN_TURN
def test_every_kind_of_block_gives_the_outputs_of_torch_at_an_odd_size(
    architecture: Architecture, tmp_path: Path
) -> None:
    network, path = random_network(architecture), tmp_path / "model.onnx"
    images = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(1))
    export_onnx(network, images, path, any_batch=False, tidy=False)
    assert difference(path, network, images) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(9, 9), (13, 10), (7, 5)])
@pytest.mark.sampled(2)
def test_adaptive_pooling_of_any_sides_has_a_form_in_onnx(
    sides: tuple[int, int], tmp_path: Path
) -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return adaptive_max_pool(x, (3, 5))

    images = torch.randn(2, 4, *sides)
    torch.testing.assert_close(Pool()(images), F.adaptive_max_pool2d(images, (3, 5)))
    export_onnx(Pool(), images, tmp_path / "model.onnx", any_batch=False)
    assert difference(tmp_path / "model.onnx", Pool(), images) == 0


def test_a_block_without_a_form_in_onnx_is_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.AdaptiveMaxPool2d(3))).eval()
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"block '1\.0' can't be exported: .*adaptive_max_pool2d"):
        export_onnx(network, torch.randn(2, 3, 8, 8), path, any_batch=True)
    assert not path.exists()
