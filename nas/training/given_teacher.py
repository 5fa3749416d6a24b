"""A teacher that the user gives: a classifier of the same classes, as timm makes it.

It answers for the very images that a network learns from, augmented as they are, which it gets as
its own configuration wants them. `nas.training.distillation` says what is learned from its answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.data import resolve_data_config
from torch import Tensor
from torch.nn import functional as F

from nas.data import Data
from nas.export.pretrained import SOURCES, digest_of, timm_model
from nas.training.loop import autocast
from nas.utilities.errors import InputError
from nas.utilities.seeding import preserved_global_generators
from supernet import Network
from supernet.authors import read_checkpoint

MODES = {"bilinear": "bilinear", "nearest": "nearest"}
"""How torch calls the interpolations of timm's configurations; all others are taken for bicubic."""

Triple = tuple[float, float, float]


class Answers(NamedTuple):
    """What a teacher says of images.

    Attributes:
        scores: Class scores, (B, classes).
        places: Those of each place of its last map, (B, classes, H, W), whose mean the former are;
            None without token labels.
    """

    scores: Tensor
    places: Tensor | None = None


Ask = Callable[[Tensor], Answers]
"""A teacher as a learner knows it: from normalised images (B, 3, S, S) to its answers."""


@dataclass(frozen=True, kw_only=True)
class GivenTeacher:
    """A classifier that teaches, and how it wants its images.

    Attributes:
        asked: What the user called it.
        model: Of timm; in eval mode, without gradients.
        size: Height and width of its images in pixels.
        interpolation: How they are resized to that, as torch calls it.
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        token_labels: Whether it answers for each place of its last map, too.
    """

    asked: str
    model: Any
    size: tuple[int, int]
    interpolation: str
    mean: Triple
    std: Triple
    token_labels: bool = False

    @property
    def identity(self) -> str:
        """Its architecture's name, and sixteen hex digits of its weights and of its images."""
        name: str = self.model.pretrained_cfg["architecture"]
        built = self.model.architecture.hash if isinstance(self.model, Network) else name
        images = self.size, self.interpolation, self.mean, self.std
        return f"{name} {digest_of(self.model, f'{built} {images}')}"

    @property
    def told(self) -> str:
        """What it does, in a sentence."""
        height, width = self.size
        return (
            f"networks learn from {self.asked} as well, which gets their images at "
            f"{height} × {width} px"
        )

    def asker(self, data: Data, device: torch.device) -> Ask:
        """The teacher on a device, for images that are normalised as these data say."""
        self.model.to(device)
        return partial(self.answers, mean=data.mean, std=data.std)

    @torch.no_grad()
    def answers(self, images: Tensor, *, mean: Triple, std: Triple) -> Answers:
        """What it says of images (B, 3, S, S) that were normalised by this mean and deviation."""
        pixels = images * _channels(std, images) + _channels(mean, images)
        if pixels.shape[2:] != self.size:
            smooth = self.interpolation != "nearest"
            pixels = F.interpolate(pixels, self.size, mode=self.interpolation, antialias=smooth)
        seen = (pixels - _channels(self.mean, images)) / _channels(self.std, images)
        with autocast(images.device):
            if not self.token_labels:
                return Answers(self.model(seen).float())
            places = scores_of_places(self.model, self.model.forward_features(seen)).float()
        return Answers(places.mean(dim=(2, 3)), places)


def scores_of_places(model: Any, x: Tensor) -> Tensor:
    """The classifier's scores of each place of a map by itself, (B, classes, H, W).

    Args:
        model: Of timm.
        x: The map, as its `forward_features` gives it.
    """
    last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    x = x if last else x.permute(0, 2, 3, 1)
    single = x.flatten(0, 2)[:, None, None]  # each place a map of its own, (B*H*W, 1, 1, C)
    scores: Tensor = model.forward_head(single if last else single.permute(0, 3, 1, 2))
    return scores.view(*x.shape[:3], -1).permute(0, 3, 1, 2)


def given_teacher(asked: str | None, data: Data, *, token_labels: bool) -> GivenTeacher | None:
    """The teacher that a user asks for, if one is.

    Args:
        asked: `MODEL`, for a model of timm with its pretrained weights; `MODEL:CHECKPOINT`, for one
            with those of a file; `subnet:FOLDER`, for an export of ours.
        data: Whose classes it must have.
        token_labels: Whether it is to answer for each place of its last map, too.

    Raises:
        InputError: If there is no such model or file, the weights are of another model, or the
            classes other ones; or if it cannot answer as it is to.
    """
    if asked is None:
        if token_labels:
            raise InputError("`token_labels`: whose? They need a `teacher`")
        return None
    try:
        with preserved_global_generators():
            model, training = _read(asked, data)
        images = resolve_data_config(training, pretrained_cfg=model.pretrained_cfg)
        teacher = GivenTeacher(
            asked=asked,
            model=model.requires_grad_(False),
            size=tuple(images["input_size"][1:]),
            interpolation=MODES.get(images["interpolation"], "bicubic"),
            mean=tuple(images["mean"]),
            std=tuple(images["std"]),
            token_labels=token_labels,
        )
        _check_answers(teacher, channels=images["input_size"][0])
    except InputError as error:
        raise InputError(f"`teacher` {asked}: {error}") from None
    return teacher


def named(teacher: GivenTeacher | None) -> dict[str, Any]:
    """The fields of `nas.training.settings.TrainingSettings` that say who teaches, and how."""
    if teacher is None:
        return {}
    return {"teacher": teacher.identity, "token_labels": teacher.token_labels}


def _read(asked: str, data: Data) -> tuple[Any, Mapping[str, Any]]:
    """A model with its weights, and the arguments of timm's train.py where it trained them."""
    source = next((prefix for prefix in SOURCES if asked.startswith(prefix)), "")
    model_id, colon, checkpoint = asked.removeprefix(source).partition(":")
    if not model_id or (colon and not checkpoint):
        raise InputError("legal: MODEL, or MODEL:CHECKPOINT such as resnet18:model_best.pth.tar")
    name = source + model_id
    if asked == "subnet":
        raise InputError("legal: subnet:FOLDER, of an export")
    if name == "subnet" and Path(checkpoint).is_dir():
        model = timm_model(name, pretrained=True, architecture=checkpoint)
        _check_classes(model, data)
        return model, {}
    if not checkpoint:
        _check_classes(timm_model(name), data)  # before weights are downloaded
        return timm_model(name, pretrained=True), {}
    file = Path(checkpoint)
    try:
        state = read_checkpoint(file)
    except ValueError as error:
        raise InputError(str(error)) from None
    training = _training_arguments(file)
    model = timm_model(name, **_built_with(name, training))
    classifier = model.pretrained_cfg.get("classifier")
    first = classifier if isinstance(classifier, str) else (classifier or [""])[0]
    outputs = state.get(f"{first}.weight")
    if outputs is not None and len(outputs) != model.num_classes:
        model.reset_classifier(len(outputs))
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise InputError(f"{file}: not the weights of {name}: {_misfit(model, state)}") from None
    except ValueError as error:  # of a design of ours
        raise InputError(f"{file}: {error}") from None
    _check_classes(model, data)
    return model, training


def _training_arguments(file: Path) -> Mapping[str, Any]:
    """The arguments that timm's train.py keeps beside the weights; none in files of others."""
    if file.suffix == ".safetensors":
        return {}
    with torch.serialization.safe_globals([argparse.Namespace]):
        saved = torch.load(file, map_location="cpu", weights_only=True)
    arguments = saved.get("args")
    return vars(arguments) if isinstance(arguments, argparse.Namespace) else {}


def _built_with(name: str, training: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's train.py built a model with, as far as its weights depend on it."""
    built = dict(training.get("model_kwargs") or {})
    known = timm.get_pretrained_cfg(name)
    if training and known is not None and known.fixed_input_size:
        images = resolve_data_config(training, pretrained_cfg=known.to_dict())
        built.setdefault("img_size", images["input_size"][1:])
    return built


def _misfit(model: Any, state: Mapping[str, Tensor]) -> str:
    """The first tensor of a checkpoint that a model lacks, or has in another shape."""
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            return f"{name} is missing"
        if state[name].shape != tensor.shape:
            return f"{name} has the shape {list(state[name].shape)}, not {list(tensor.shape)}"
    return f"it has no {next((name for name in state if name not in wanted), 'such structure')}"


def _check_classes(model: Any, data: Data) -> None:
    """See that a model has the classes of the data, in their order where it knows their names."""
    count = model.num_classes
    if count != data.num_classes:
        raise InputError(f"it tells {count:,} classes apart, and the data have {data.num_classes}")
    names = model.pretrained_cfg.get("label_names") or ()
    if len(names) == count:
        for number, (theirs, ours) in enumerate(zip(names, data.class_names, strict=True)):
            if theirs != ours:
                raise InputError(f"its class {number} is {theirs!r}, and that of the data {ours!r}")


def _check_answers(teacher: GivenTeacher, *, channels: int) -> None:
    """See that a teacher answers as it is to, on two images of noise.

    Raises:
        InputError: If not.
    """
    if channels != 3:
        raise InputError(f"it takes images of {channels} channels; legal: 3")
    images = torch.randn(2, 3, *teacher.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            scores = teacher.model(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            height, width = teacher.size
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"it cannot take images of {height} × {width} px: {why}") from None
        if not scores.isfinite().all():
            raise InputError("its class scores are infinite or not a number")
        if teacher.token_labels:
            _check_places(teacher.model, images)


def _check_places(model: Any, images: Tensor) -> None:
    """See that the scores of images are the mean of those of the places of the last map."""
    try:
        features = model.forward_features(images)
        noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        places, scores = scores_of_places(model, noise), model.forward_head(noise)
        linear = torch.allclose(places.mean(dim=(2, 3)), scores, rtol=1e-3, atol=1e-3)
    except (AttributeError, RuntimeError, TypeError):  # they are no map
        linear = False
    if not linear:
        raise InputError(
            "`token_labels` need a classifier that is linear behind the mean of the last map, such "
            "as a ResNet's"
        )
    if places.shape[2:] == (1, 1):
        height, width = images.shape[2:]
        raise InputError(f"`token_labels`: of {height} × {width} px its last map is 1 × 1")


def _channels(values: Triple, images: Tensor) -> Tensor:
    return torch.tensor(values, device=images.device).view(3, 1, 1)
