"""Architecture search for vision transformers: train a supernet, search it, retrain what it finds.

    import nas

    run = nas.search(budget="2GFLOPs", data="/data/birds")
    run.front               # a DataFrame, the best first
    run.network(rank=1)     # a torch module with its weights
    nas.retrain(run, top=3)

`docs/library.md` shows more. Importing this package loads neither torch nor Ray.
"""

import os
from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Read when torch loads GNU OpenMP, whose threads spin while they wait for each other: by default so
# long that any other process on the machine slows a training step up to fiftyfold. This long costs
# a tenth on an idle machine, and a busy one then shares fairly.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from nas import api
from nas.api import compare, convert, open_run, profile, retrain

if TYPE_CHECKING:
    from nas.api import export, search
    from nas.data import OwnDataset
    from nas.runs.run import Run
    from nas.utilities.errors import InputError, NothingFound
    from nas.utilities.interrupt import Interrupted

__all__ = [
    "InputError",
    "Interrupted",
    "NothingFound",
    "OwnDataset",
    "Run",
    "compare",
    "convert",
    "export",
    "open_run",
    "profile",
    "retrain",
    "search",
]

_HOMES = {
    "InputError": "nas.utilities.errors",
    "Interrupted": "nas.utilities.interrupt",
    "NothingFound": "nas.utilities.errors",
    "OwnDataset": "nas.data",
    "Run": "nas.runs.run",
}
"""Where the public names are defined, to be imported when they are first asked for."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Room(ModuleType):
    """A package that is also the function of its name in `nas.api`.

    `nas.search` and `nas.export` are both what a user calls and the rooms where it is done.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        return signature(self._function)

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(api, self.__name__.rpartition(".")[2])
        return function


for _name in ("export", "search"):
    import_module(f"nas.{_name}").__class__ = _Room
