"""One way in: what a user calls their data goes in, three splits come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nas.data.dataset import Augment, Data, Part, Samples
from nas.data.digits import load_digits
from nas.data.fashion import read_fashion_mnist
from nas.data.folder import read_folder
from nas.data.images import ImageSource, TransformedImages, eval_transform, train_transform
from nas.data.own_dataset import OwnDataset
from nas.data.splits import arrange, class_notes, cut
from nas.data.timm_dataset import PREFIXES, read_timm_dataset
from nas.utilities.errors import InputError
from nas.utilities.seeding import derived_seed

DIGITS = "digits"
"""The data that come with us. They are drawn when they are asked for, which takes no time."""

_NAMED: Mapping[str, Callable[[], ImageSource]] = {"fashion-mnist": read_fashion_mnist}

BUILT_IN = (DIGITS, *_NAMED)
"""What names data by itself, whether there is a folder of that name or not."""


def load_data(
    source: str | OwnDataset, *, image_size: int, seed: int, augment: Augment = "light"
) -> Data:
    """Find a data set and divide it into train, search and test.

    Args:
        source: `digits`, `fashion-mnist`, a name for `timm.data.create_dataset` with its prefix
            (`torch/cifar10`, `hfds/...`, `hfids/...`, `tfds/...`, `wds/FOLDER`), or a folder of
            class folders, on its own or below `train`, `val` and `test`; or the user's own
            datasets.
        image_size: Side of the images in pixels.
        seed: Decides what is cut from where, and for `digits` every fixed canvas.
        augment: `light` for training a supernet: crops of at least half the image, and flips;
            `full` for retraining: DeiT's recipe as far as it works on single images. `digits` are
            on a fresh canvas each time instead.

    Raises:
        InputError: There is no such data, or it cannot be used; the message says why.
    """
    if source == DIGITS:
        return load_digits(image_size=image_size, seed=seed)
    found = _find(source, image_size=image_size, seed=seed)
    train, search, test, notes = arrange(found, seed=seed)
    sizes = class_notes(
        {"train": train.labels, "search": search.labels, "test": test.labels}, found.class_names
    )
    fixed = eval_transform(image_size, found.crop)
    return Data(
        name=found.name,
        train=TransformedImages(train, train_transform(image_size, augment)),
        search=TransformedImages(search, fixed),
        test=TransformedImages(test, fixed),
        class_names=found.class_names,
        mean=found.mean,
        std=found.std,
        epoch_size=len(train),
        notes=(*notes, *sizes),
        crop=found.crop,
        root=found.root,
        plain_train=TransformedImages(train, fixed),
    )


def hold_out(data: Data, share: float, *, seed: int) -> tuple[Data, Samples]:
    """Data with a smaller train split, and what was cut from it: so much of each class.

    Args:
        data: As they were loaded.
        share: Of each class, at least one image.
        seed: Decides which images.

    Returns:
        The data, and the images that were held out, fixed as those of search and test are.

    Raises:
        InputError: A class has too few images to be in both parts.
    """
    rest, held = cut(
        data.train.labels,
        [share],
        seed=derived_seed("hold out", seed),
        class_names=data.class_names,
        source=f"`validate` {share:g}: {data.name}",
        purpose="hold some of them out",
    )
    plain = data.train if data.plain_train is None else data.plain_train
    smaller = replace(
        data,
        train=Part(data.train, rest),
        plain_train=Part(plain, rest),
        epoch_size=round((1 - share) * data.epoch_size),
    )
    return smaller, Part(plain, held)


def _find(source: str | OwnDataset, *, image_size: int, seed: int) -> ImageSource:
    if isinstance(source, OwnDataset):
        return source.source
    if source in _NAMED:
        return _NAMED[source]()
    prefix, _, name = source.partition("/")
    if prefix in PREFIXES and name:
        return read_timm_dataset(source, image_size=image_size)
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(
            f"`data` {source}: neither a folder nor a known name; give a folder of class folders, "
            f"{', '.join(BUILT_IN)}, or NAME with a prefix that timm knows: "
            f"{', '.join(f'{known}/NAME' for known in PREFIXES)}"
        )
    return read_folder(path, seed=seed)
