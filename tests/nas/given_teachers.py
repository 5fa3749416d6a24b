"""Small classifiers of timm that teach, as files that a user gives."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import timm
import torch

MODEL = "test_resnet"
"""The smallest of timm's residual networks."""


def classifier(name: str = MODEL, *, classes: int = 10, seed: int = 0) -> Any:
    """A model with drawn weights, also those that timm would begin with as zeros."""
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=classes).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def teacher_file(folder: Path, *, size: int = 64, **which: Any) -> Path:
    """The checkpoint of such a model as timm's train.py writes it, trained at that size."""
    arguments = Namespace(model=MODEL, img_size=size, input_size=None, mean=None, std=(0.25,))
    state = {"epoch": 3, "state_dict": classifier(**which).state_dict(), "args": arguments}
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "model_best.pth.tar")
    return folder / "model_best.pth.tar"
