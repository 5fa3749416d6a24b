"""The teacher from outside the space: a small residual network, trained first and then frozen.

Its maps have the sizes and as many channels as the largest of the space, so that each stage of a
subnet can learn from them by itself (`nas.training.strategies.blockwise`). It is no member of the
space, and shares no weight with one: no choice is trained before the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F

from nas.training.checkpoint import save_checkpoint
from nas.training.loop import Session, autocast, train
from nas.training.module_learner import ModuleLearner
from nas.training.ranks import ALONE, Ranks
from nas.training.settings import SupernetTraining, TrainingSettings
from nas.training.strategies import TeacherPlan
from search_space import SearchSpace
from supernet.blocks.layers import MapConv
from supernet.blocks.norms import MapBatchNorm

NARROWER = 2
"""The teacher has so many times fewer channels than the largest of the space."""

LEAST_WIDTH = 16


class Knowledge(NamedTuple):
    """What a teacher gives: class scores (B, classes), and a map (B, H, W, C) of each stage."""

    scores: Tensor
    maps: list[Tensor]


class Teacher(nn.Module):
    """ResNet (He et al., 2016) with one basic block a stage, which learns in few and cheap steps.

    Channels of a map are random directions in the space of what the block gives, normalised over
    many images: every prefix of them knows a little of everything, as subnets of any width need it.

    Args:
        space: Whose maps it has.
        num_classes: Outputs of its classifier.
        in_chans: Channels of the image.
    """

    def __init__(self, space: SearchSpace, *, num_classes: int, in_chans: int = 3) -> None:
        super().__init__()
        self.stem_spec = space.stem
        given = [max(choices.width) for choices in space.stages]
        widths = [max(LEAST_WIDTH, width // NARROWER) for width in given]
        stride = space.stem.stride // (2 if space.stem.pools_first else 1)
        halvings = max(1, round(math.log2(stride)))
        channels = [in_chans, *[max(LEAST_WIDTH, widths[0] // 2)] * (halvings - 1), widths[0]]
        self.stem = nn.Sequential(
            *(
                nn.Sequential(*_convolution(inputs, outputs, side=3, stride=2), nn.ReLU())
                for inputs, outputs in itertools.pairwise(channels)
            )
        )
        self.blocks, self.norms = nn.ModuleList(), nn.ModuleList()
        inputs = widths[0]
        for index, (choices, width, outputs) in enumerate(
            zip(space.stages, widths, given, strict=True)
        ):
            self.blocks.append(ResidualBlock(inputs, width, stride=2 if choices.pooling else 1))
            self.norms.append(MapBatchNorm(outputs, affine=False))
            directions = torch.randn(outputs, width) / math.sqrt(width)
            self.register_buffer(f"directions{index}", directions)
            inputs = width
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Knowledge:
        """Images (B, in_chans, H, W) → what the teacher knows of them."""
        height, width = self.stem_spec.size(*images.shape[2:])
        x = self.stem(images.permute(0, 2, 3, 1))
        if x.shape[1:3] != (height, width):
            x = F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), (height, width)).permute(0, 2, 3, 1)
        maps = []
        for index, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            x = block(x)
            maps.append(norm(F.linear(x.detach(), self.get_buffer(f"directions{index}"))))
        return Knowledge(self.head(x.mean(dim=(1, 2))), maps)


class ResidualBlock(nn.Module):
    """The basic block of ResNet (He et al., 2016, figure 2) on a map."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *_convolution(inputs, outputs, side=3, stride=stride),
            nn.ReLU(),
            *_convolution(outputs, outputs, side=3, stride=1),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(
            *([] if same else _convolution(inputs, outputs, side=1, stride=stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/stride⌉, ⌈W/stride⌉, outputs)."""
        return F.relu(self.convs(x) + self.shortcut(x))


def _convolution(inputs: int, outputs: int, *, side: int, stride: int) -> list[nn.Module]:
    conv = MapConv(inputs, outputs, kernel_size=side, stride=stride, padding=side // 2, bias=False)
    return [conv, MapBatchNorm(outputs)]


def trained_teacher(
    space: SearchSpace,
    plan: TeacherPlan,
    session: Session,
    *,
    settings: SupernetTraining,
    state: Path,
    on_step: Callable[[int, float], None],
) -> Teacher:
    """Train the teacher that a strategy plans, or take the one that was trained.

    Args:
        space: Whose subnets it teaches.
        plan: How long it is trained, and how fast.
        session: On what, where, and until when.
        settings: Of the training that it teaches in.
        state: Where its state is kept. The caller removes it, once all is learned.
        on_step: Called after every step, in the first rank, with the number of steps done and the
            loss.

    Returns:
        The teacher, in eval mode.

    Raises:
        Interrupted: If a stop was requested; the state was saved.
        InputError: If the saved state is of other settings or cannot be read, or the loss is no
            longer finite.
    """
    own = TrainingSettings(
        steps=plan.steps,
        batch_size=settings.batch_size,
        lr=plan.rate * settings.lr,
        seed=settings.seed,
        weight_decay=settings.weight_decay,
        warmup_share=settings.warmup_share,
    )
    device, ranks = session.device, session.ranks
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        teacher = Teacher(space, num_classes=session.data.num_classes)
    learner = TeacherLearner(teacher.to(device), own, ranks=ranks)
    identity = {"teacher_of": space.name, **own.model_dump(mode="json")}

    def show(step: int, losses: Sequence[float]) -> None:
        on_step(step, losses[0])

    train(learner, session, settings=own, state=state, identity=identity, on_step=show)
    if ranks.rank == 0:
        save_checkpoint(state, step=plan.steps, identity=identity, tensors=learner.state_dict())
    return teacher.requires_grad_(False).eval()


class TeacherLearner(ModuleLearner):
    """A teacher that learns from the labels; a `nas.training.loop.Learner`.

    Args:
        teacher: Who learns.
        settings: How.
        ranks: The processes that train together.
    """

    def __init__(
        self, teacher: Teacher, settings: TrainingSettings, *, ranks: Ranks = ALONE
    ) -> None:
        self.teacher = teacher
        optimizer = create_optimizer_v2(
            teacher,
            opt="adamw",
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            betas=settings.betas,
            eps=settings.eps,
        )
        for group in optimizer.param_groups:
            group["lr_scale"] = 1.0
        super().__init__(teacher, optimizer, clip_norm=settings.clip_norm, ranks=ranks)

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """One loss: the cross-entropy with the labels."""
        with autocast(images.device):
            scores = self.teacher.train()(images).scores
        yield F.cross_entropy(scores.float(), labels)
