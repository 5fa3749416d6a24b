"""Recipes for training a network alone, by name. No torch here: the command line names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from nas.data import Augment

RecipeName = Literal["default", "deit", "finetune"]


class NamedRecipe(NamedTuple):
    """What a recipe says of a training, for batches of any size and data of any number of images.

    Attributes:
        lr: Peak learning rate.
        lr_batch: The size of the batches that it is for, and others have one in proportion; None
            where it is the same for all.
        epochs: Passes over the train split; None where the run's own length decides.
        warmup_epochs: Those in which the learning rate rises, at most half of the steps; None for
            the share of `TrainingSettings`.
        drop_path: Stochastic depth of the last block.
        augment: Of the images.
        fields: Others of `nas.training.alone.Recipe` that differ from their defaults.
    """

    lr: float
    lr_batch: int | None
    epochs: int | None
    warmup_epochs: int | None
    drop_path: float
    augment: Augment
    fields: Mapping[str, Any]

    def rate(self, batch_size: int) -> float:
        """Peak learning rate for batches of that size."""
        return self.lr if self.lr_batch is None else self.lr * batch_size / self.lr_batch


RECIPES: dict[RecipeName, NamedRecipe] = {
    "default": NamedRecipe(1e-3, None, None, None, 0.05, "light", {}),
    # Touvron et al., 2021, table 9; weights are not averaged and gradients not clipped there.
    "deit": NamedRecipe(5e-4, 512, 300, 5, 0.1, "full", {"clip_norm": 0.0, "repeats": 3}),
    # As the authors of DeiT go on at 384 pixels.
    "finetune": NamedRecipe(
        5e-6, 512, 30, 5, 0.1, "full", {"clip_norm": 0.0, "repeats": 3, "weight_decay": 1e-8}
    ),
}
