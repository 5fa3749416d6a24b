"""Windows of a map: cutting it into them, putting it together, and who sees whom."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from search_space.operators import window_grid
from supernet.blocks.kept import kept


@dataclass(frozen=True)
class Windows:
    """The non-overlapping windows of a map, after it was rolled by a shift.

    A map that the windows don't fill is padded at its end; padding is hidden from every query. A
    map of which a side fits one window is not shifted (as in the code of PSLT).

    Attributes:
        height: Of the map, in tokens.
        width: Likewise.
        window: Largest side of a window.
        shift: Tokens that the map is rolled by, down and right, where that is positive; the tokens
            of a window see each other only where they were neighbours before.
    """

    height: int
    width: int
    window: int
    shift: int = 0

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Rows of windows, rows of a window, columns of windows, columns of a window."""
        return (*window_grid(self.height, self.window), *window_grid(self.width, self.window))

    @property
    def shifts(self) -> tuple[int, int]:
        """The shifts down and right: at most half a window, none where a side is one window."""
        rows, high, columns, wide = self.grid
        if min(rows, columns) == 1:
            return 0, 0
        sign = 1 if self.shift > 0 else -1
        return sign * min(abs(self.shift), high // 2), sign * min(abs(self.shift), wide // 2)

    def cut(self, x: Tensor) -> Tensor:
        """(B, H, W, c) → (B·windows, tokens of a window, c)."""
        batch, height, width, channels = x.shape
        rows, high, columns, wide = self.grid
        if any(self.shifts):
            x = x.roll(self.shifts, dims=(1, 2))
        if (height, width) != (rows * high, columns * wide):
            x = F.pad(x, (0, 0, 0, columns * wide - width, 0, rows * high - height))
        x = x.view(batch, rows, high, columns, wide, channels).transpose(2, 3)
        return x.reshape(-1, high * wide, channels)

    def join(self, x: Tensor) -> Tensor:
        """(B·windows, tokens of a window, c) → (B, H, W, c)."""
        rows, high, columns, wide = self.grid
        x = x.view(-1, rows, columns, high, wide, x.shape[-1]).transpose(2, 3)
        x = x.reshape(x.shape[0], rows * high, columns * wide, -1)[:, : self.height, : self.width]
        down, right = self.shifts
        return x.roll((-down, -right), dims=(1, 2)) if down or right else x

    def visible(self, device: torch.device) -> Tensor | None:
        """Boolean (windows, 1, queries or 1, keys), False hides; None where all is visible."""
        return _visible(self, device)


@kept
def _visible(windows: Windows, device: torch.device) -> Tensor | None:
    rows, high, columns, wide = windows.grid
    padded = (windows.height, windows.width) != (rows * high, columns * wide)
    if not padded and not any(windows.shifts):
        return None
    down, right = windows.shifts
    row_runs = _runs(windows.height, rows * high, down)
    column_runs = _runs(windows.width, columns * wide, right)
    # A number for each run of rows and columns that were neighbours before the roll.
    run = row_runs[:, None] * (1 + column_runs.max()) + column_runs
    inside = torch.zeros(rows * high, columns * wide, dtype=torch.bool)
    inside[: windows.height, : windows.width] = True

    def cut(x: Tensor) -> Tensor:
        return x.view(rows, high, columns, wide).transpose(1, 2).reshape(rows * columns, -1)

    run, inside = cut(run), cut(inside)
    visible = inside[:, None, :]
    if any(windows.shifts):
        visible = visible & (run[:, :, None] == run[:, None, :])
    return visible[:, None].to(device)


def _runs(side: int, padded: int, shift: int) -> Tensor:
    """The run of each place along a side that was rolled; padding belongs to the last one."""
    places = torch.arange(side).roll(shift)
    starts = torch.cat((torch.zeros(1, dtype=torch.bool), places[1:] < places[:-1]))
    runs = starts.cumsum(0)
    return torch.cat((runs, runs[-1:].expand(padded - side)))


@kept
def relative_places(height: int, width: int, high: int, wide: int) -> Tensor:
    """Where the relative positions of a map of `high` × `wide` hold those of each query and key.

    Returns:
        int64 (H·W, H·W): the place in a table of (2·high − 1)·(2·wide − 1), by rows, of (row of
        query − row of key, column likewise), which for a smaller map is in the middle of the table.
    """
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    down = rows[:, None] - rows + high - 1
    right = columns[:, None] - columns + wide - 1
    return down * (2 * wide - 1) + right
