"""How large the numbers of a spec may be, and the file that it is read from.

The bounds lie far beyond what is sensible, so that they are in nobody's way: what exceeds them is a
slip or no spec at all, and is refused before anything is built of it.
"""

import errno
from pathlib import Path
from typing import Annotated

from pydantic import Field

Depth = Annotated[int, Field(ge=1, le=1_000)]
"""Blocks of a stage, and layers that share an attention map."""

Channels = Annotated[int, Field(ge=1, le=65_536)]
"""Channels, and the heads that they are split into."""

Side = Annotated[int, Field(ge=1, le=1_024)]
"""Side in tokens of a window, a kernel, a patch or a map; of a patch of the image in pixels."""

LARGEST_IMAGE = 8_192
"""Side of an image in pixels."""

MOST_CLASSES = 1_000_000
"""Classes that are told apart."""

Pixels = Annotated[int, Field(ge=1, le=LARGEST_IMAGE)]
Classes = Annotated[int, Field(ge=0, le=MOST_CLASSES)]

MOST_STAGES = 32
"""Stages of an architecture."""

MOST_CHOICES = 100
"""Choices of one gene of a stage."""

MOST_BODIES = 50_000
"""Combinations of the choices of one stage, its pooling left out: listing them takes seconds."""

LARGEST_FILE = 1 << 24
"""Bytes of a JSON file."""


def read_limited(path: str | Path) -> bytes:
    """What a JSON file holds, which may be anything.

    Raises:
        OSError: If it cannot be read, or is larger than `LARGEST_FILE`.
    """
    with Path(path).open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(errno.EFBIG, f"larger than {LARGEST_FILE >> 20} MiB")
    return content
