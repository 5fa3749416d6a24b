"""The machine and the versions that a run's results may depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from nas.utilities.devices import chip_name, training_dtype

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "optuna",
    "ray",
    "numpy",
    "pandas",
    "plotly",
    "onnxruntime",
)


def environment(device: str) -> dict[str, object]:
    """What `environment.json` holds."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": chip_name("cpu"),
        "cpu_threads": torch.get_num_threads(),
        "device": chip_name(device),
        "training_dtype": str(training_dtype(device)).removeprefix("torch."),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    """The installed version; None where a machine does without the package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
