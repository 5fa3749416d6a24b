import pytest
import torch

from nas.runs.steps.train import MONITOR_IMAGES, monitored


@pytest.mark.parametrize("images", [1, 128, 600, 2000])
def test_what_is_looked_at_while_training_is_of_every_class_of_a_folder(images: int) -> None:
    labels = (torch.arange(images) * min(10, images)) // images  # class by class
    some = labels[monitored(images)]
    assert some.unique().equal(labels.unique())
    assert min(images, MONITOR_IMAGES // 2) <= len(some) <= MONITOR_IMAGES
