"""How the parameters of a module train, where that differs from the rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn


@dataclass(frozen=True, kw_only=True)
class ParameterSetting:
    """How a parameter trains.

    Attributes:
        decayed: Whether weight decay applies to it.
        lr_scale: The share of the learning rate that it trains with.
    """

    decayed: bool = True
    lr_scale: float = 1.0


@runtime_checkable
class HasSettings(Protocol):
    """A module some of whose parameters don't train by the rule.

    Attributes:
        own_settings: How these train, by their names in the module.
    """

    own_settings: Mapping[str, ParameterSetting]


def parameter_settings(module: nn.Module) -> dict[str, ParameterSetting]:
    """How each parameter of a module and of those within trains, by its full name.

    The rule is that matrices and kernels are decayed, and vectors (norms, biases, the class token)
    are not. A module says what is different in `own_settings`.

    Raises:
        KeyError: If a module has settings for a parameter that it lacks.
    """
    settings: dict[str, ParameterSetting] = {}
    for place, part in module.named_modules():
        own = part.own_settings if isinstance(part, HasSettings) else {}
        parameters = dict(part.named_parameters(recurse=False))
        if unknown := own.keys() - parameters.keys():
            raise KeyError(f"{type(part).__name__} has settings for {sorted(unknown)[0]!r}")
        for name, parameter in parameters.items():
            rule = ParameterSetting(decayed=parameter.ndim > 1)
            settings[f"{place}.{name}" if place else name] = own.get(name, rule)
    return settings
