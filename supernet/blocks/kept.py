"""Keeping what was built of sizes alone: masks, and places in tables."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

import torch

Built = TypeVar("Built")
Given = TypeVarTuple("Given")


def kept(build: Callable[[*Given], Built]) -> Callable[[*Given], Built]:
    """Keep what a function builds of arguments that can be hashed.

    It may be used in training, whatever mode it was first asked for in. Compiled code builds it
    anew: torch's compiler can't follow the cache.
    """

    @lru_cache(maxsize=256)
    def keep(*args: *Given) -> Built:
        with torch.inference_mode(False), torch.device("cpu"):
            return build(*args)

    @wraps(build)
    def get(*args: *Given) -> Built:
        return build(*args) if torch.compiler.is_dynamo_compiling() else keep(*args)

    return get
