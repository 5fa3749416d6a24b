"""How the parameters of a module train, where that differs from the rule."""

from collections.abc import Mapping
from dataclasses import dataclass

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


def parameter_settings(module: nn.Module) -> dict[str, ParameterSetting]:
    """How each parameter of a module and of those within trains, by its full name.

    The rule is that matrices and kernels are decayed, and vectors (norms, biases, the class token)
    are not. A module says what is different in `own_settings`, by the names in the module.

    Raises:
        KeyError: If a module has settings for a parameter that it lacks.
    """
    settings: dict[str, ParameterSetting] = {}
    for place, part in module.named_modules():
        own: Mapping[str, ParameterSetting] = getattr(part, "own_settings", {})
        parameters = dict(part.named_parameters(recurse=False))
        if unknown := own.keys() - parameters.keys():
            raise KeyError(f"{type(part).__name__} has settings for {sorted(unknown)[0]!r}")
        for name, parameter in parameters.items():
            rule = ParameterSetting(decayed=parameter.ndim > 1)
            settings[f"{place}.{name}" if place else name] = own.get(name, rule)
    return settings
