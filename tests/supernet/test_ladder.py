"""PSLT's ladder against a naive computation of its definition."""

import pytest
import torch
from samples import randomise
from torch import Tensor
from torch.nn import functional as F

from search_space import Ladder
from supernet.blocks.ladder import LadderBlock, LadderBranch
from supernet.blocks.windows import Windows

WIDTH, HEADS, WINDOW = 24, 2, 7
THIRD = WIDTH // 3


def ladder(conv_norm: str = "batch") -> LadderBlock:
    block = LadderBlock(
        Ladder(heads=HEADS, window=WINDOW), WIDTH, conv_norm, norm_eps=1e-5, drop_path_rate=0.0
    )
    randomise(block.state_dict())
    return block.eval()


def groups_of_rows(windows: Windows) -> list[list[int]]:
    """The rows of a map that attend to each other, in the order of their first one."""
    rows = torch.arange(windows.height).view(1, -1, 1, 1).expand(1, -1, windows.width, 1)
    cut = windows.cut(rows.float())[..., 0].int()
    visible = windows.visible(torch.device("cpu"))
    groups = set()
    for window in range(len(cut)):
        for query in range(cut.shape[1]):
            seen = cut[window] if visible is None else cut[window][visible[window, 0, query]]
            groups.add(tuple(sorted(set(seen.tolist()))))
    return sorted(map(list, groups))


@pytest.mark.parametrize(
    ("shift", "groups"),
    [
        (0, [range(7), range(7, 14)]),
        (-3, [range(3), range(3, 10), range(10, 14)]),
        (3, [range(4), range(4, 11), range(11, 14)]),
    ],
)
def test_rows_that_attend_to_each_other_are_those_of_the_paper(
    shift: int, groups: list[range]
) -> None:
    assert groups_of_rows(Windows(14, 14, 7, shift)) == [list(group) for group in groups]


@pytest.mark.parametrize("shift", [0, -3, 3])
def test_a_map_of_one_window_is_neither_shifted_nor_masked(shift: int) -> None:
    windows = Windows(7, 7, 7, shift)
    assert windows.shifts == (0, 0)
    assert windows.visible(torch.device("cpu")) is None


@pytest.mark.parametrize("size", [(7, 14), (14, 7), (3, 15)])
def test_a_map_of_which_a_side_fits_a_window_is_shifted_along_neither(
    size: tuple[int, int],
) -> None:
    assert Windows(*size, 7, -3).shifts == (0, 0)


@pytest.mark.parametrize("size", [(14, 14), (7, 7), (8, 15), (3, 9), (1, 1)])
@pytest.mark.parametrize("shift", [0, -3, 3])
def test_joining_undoes_cutting(size: tuple[int, int], shift: int) -> None:
    windows, x = Windows(*size, 7, shift), torch.randn(2, *size, 3)
    torch.testing.assert_close(windows.join(windows.cut(x)), x)


def sees(i: int, k: int, side: int, shift: int) -> bool:
    """Whether rows i and k of a map are in one window and were neighbours before the roll."""
    window = -(-side // -(-side // WINDOW))
    shift = (1 if shift > 0 else -1) * min(abs(shift), window // 2)
    places = [(row + shift) % side for row in (i, k)]
    wrapped = [(row + shift) // side for row in (i, k)]
    return places[0] // window == places[1] // window and wrapped[0] == wrapped[1]


def naive_branch(branch: LadderBranch, x: Tensor, previous: Tensor | None) -> Tensor:
    """A branch on one map (H, W, c), one query at a time."""
    height, width, channels = x.shape
    n = F.layer_norm(x, (channels,), branch.norm1.weight, branch.norm1.bias, 1e-5)
    q, k = branch.q(n), branch.k(n)
    v = branch.v(n) if previous is None else previous
    table = branch.position_bias.table.view(2 * WINDOW - 1, 2 * WINDOW - 1, HEADS)
    dim = channels // HEADS
    shift = branch.shift if min(height, width) > WINDOW else 0
    attended = torch.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * dim, (head + 1) * dim)
        for i in range(height):
            for j in range(width):
                keys = [
                    (a, b)
                    for a in range(height)
                    for b in range(width)
                    if sees(i, a, height, shift) and sees(j, b, width, shift)
                ]
                scores = torch.stack(
                    [
                        q[i, j, part] @ k[a, b, part] / dim**0.5
                        + table[i - a + WINDOW - 1, j - b + WINDOW - 1, head]
                        for a, b in keys
                    ]
                )
                values = torch.stack([v[a, b, part] for a, b in keys])
                attended[i, j, part] = scores.softmax(0) @ values
    y = branch.proj(attended) + (0 if previous is None else n)
    x = x + y
    light = branch.feed_forward
    h = F.layer_norm(x, (channels,), branch.norm2.weight, branch.norm2.bias, 1e-5)[None]
    h = light.norm1(F.gelu(light.fc1(h))).permute(0, 3, 1, 2)
    kernel, bias = light.depthwise.weight, light.depthwise.bias
    h = F.conv2d(h, kernel, bias, padding=1, groups=channels).permute(0, 2, 3, 1)
    return x + light.norm3(light.fc2(light.norm2(F.gelu(h))))[0]


@pytest.mark.slow
@pytest.mark.parametrize("grad", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("size", [(10, 8), (14, 14), (8, 5), (1, 2), (7, 7)])
@pytest.mark.sampled(4)
def test_a_ladder_computes_its_definition(size: tuple[int, int], grad: bool) -> None:
    block, x = ladder(), torch.randn(2, *size, WIDTH)
    with torch.set_grad_enabled(grad):
        y = block(x)
    with torch.no_grad():
        expected = []
        for one in x:
            outputs: list[Tensor] = []
            for index, branch in enumerate(block.branches):
                part = one[..., index::3]
                outputs.append(naive_branch(branch, part, outputs[-1] if outputs else None))
            z = torch.zeros_like(one)
            for index, output in enumerate(outputs):
                z[..., index::3] = output
            z = z * torch.sigmoid(block.fusion2(F.relu(block.fusion1(z))))
            expected.append(z + block.pointwise(z))
    torch.testing.assert_close(y, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_a_ladder_can_be_trained_after_it_was_used_in_inference_mode() -> None:
    block, x = ladder(), torch.randn(1, 10, 12, WIDTH)
    with torch.inference_mode():
        block(x)
    block(x).sum().backward()
    assert block.branches[2].position_bias.table.grad.any()


def test_fewer_channels_are_a_prefix_of_more_in_every_branch() -> None:
    wide = ladder("layer")
    narrow = LadderBlock(
        Ladder(heads=1, window=WINDOW), WIDTH // 2, "layer", norm_eps=1e-5, drop_path_rate=0.0
    )
    x = torch.arange(WIDTH).view(1, 1, 1, -1)
    for index in range(3):
        whole = x.unflatten(-1, (-1, 3))[..., index].flatten().tolist()
        half = x[..., : WIDTH // 2].unflatten(-1, (-1, 3))[..., index].flatten().tolist()
        assert whole[: len(half)] == half
    shapes = {name: tensor.shape for name, tensor in wide.state_dict().items()}
    for name, tensor in narrow.state_dict().items():
        assert all(a <= b for a, b in zip(tensor.shape, shapes[name], strict=True)), name
