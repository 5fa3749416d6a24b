"""Whether what a user asks for has room in memory, told before anything is built.

All bounds are lower ones: what passes may still be too much, but what is refused could never work.
"""

from nas.data import Data
from nas.runs.config import RunConfig
from nas.utilities.devices import check_memory, training_dtype
from search_space import SearchSpace, total_cost


def check_run(config: RunConfig, data: Data) -> None:
    """See that the memory suffices for the training of a run.

    Raises:
        InputError: If not.
    """
    params = total_cost(config.space.scaled(1.0), num_classes=data.num_classes).params
    # Weights, gradients and the two moments of AdamW, in float32.
    check_memory(f"`space` {config.space.name}, trained", 16 * params, config.device)
    check_training(
        config.space,
        images=min(len(data.search), config.search_images),
        batch_size=config.batch_size,
        image_size=config.proxy_size,
        device=config.device,
    )


def check_training(
    space: SearchSpace,
    *,
    images: int,
    batch_size: int,
    image_size: int,
    device: str,
) -> None:
    """See that the memory suffices for the images of a training and what is computed of a batch.

    Args:
        space: Of the network that is trained.
        images: How many images it is evaluated on, which are held in memory.
        batch_size: Images in a training step.
        image_size: Side in pixels.
        device: Where it is trained.

    Raises:
        InputError: If not.
    """
    activations = total_cost(space.scaled(0.0), image_size=image_size).activations
    needed = {"cpu": 3 * image_size**2 * (images + 4 * batch_size)}
    width = training_dtype(device).itemsize
    needed[device] = needed.get(device, 0) + width * batch_size * activations
    for where, size in needed.items():
        check_memory(f"batches of {batch_size} images of {image_size} px", size, where)
