"""An authors' checkpoint as an exported network of ours."""

from pathlib import Path

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageNetInfo

from nas.export.network import CARD, PICTURE, stage_rows
from nas.export.pretrained import Pretrained, read_authors
from nas.report.cards import converted_card
from nas.report.legend import legend
from nas.report.picture import architecture_svg
from nas.utilities.errors import InputError
from nas.utilities.files import replacing_files
from search_space import DESIGNS, PublishedDesign, total_cost
from search_space.architecture import ARCHITECTURE
from supernet import ExportedNetwork, save_exported

IMAGE_SIZE = 224
"""Pixels of the images that all of them were trained on."""

CROP_PCT = 224 / 256
"""Of the shorter side, what the authors' evaluation keeps of it."""


def convert(file: str | Path, *, design: str, out: str | Path) -> Pretrained:
    """Write the network of an authors' checkpoint into a folder, as an export of ours.

    Args:
        file: The checkpoint.
        design: Of which design it is, by the paper's name or timm's.
        out: The folder.

    Raises:
        InputError: If the design is unknown, the file cannot be read or is of another design, or
            `out` is a file or a folder of other files.
    """
    published, out = design_named(design), Path(out).resolve()
    if out.exists() and not out.is_dir():
        raise InputError(f"`out` {out} is a file; give the name of a folder")
    if out.exists() and any(out.iterdir()) and not (out / ARCHITECTURE).exists():
        raise InputError(f"`out` {out}: holds other files; give an empty or a new folder")
    pretrained = read_authors(Path(file), [published])
    network = pretrained.network
    if network.in_chans != len(IMAGENET_DEFAULT_MEAN):
        raise InputError(f"{file}: takes images of {network.in_chans} channels; legal: 3")
    about = ExportedNetwork(
        num_classes=network.num_classes,
        image_size=IMAGE_SIZE,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        class_names=_class_names(network.num_classes),
        crop_pct=CROP_PCT,
    )
    cost = total_cost(published.architecture, num_classes=network.num_classes)
    card = converted_card(
        published,
        file=Path(file).name,
        digest=pretrained.digest,
        params=cost.params,
        macs=cost.macs,
        stages=stage_rows(published.architecture, IMAGE_SIZE),
        words=legend([published.architecture]),
        about=about,
    )
    picture = architecture_svg(
        published.architecture,
        name=published.name,
        image_size=IMAGE_SIZE,
        num_classes=network.num_classes,
        standalone=True,
    )
    with replacing_files(out, last=ARCHITECTURE) as written:
        save_exported(written, network, about)
        (written / CARD).write_text(card, encoding="utf-8")
        (written / PICTURE).write_text(picture, encoding="utf-8")
    return pretrained


def design_named(name: str) -> PublishedDesign:
    """The published design of that name, the paper's or timm's.

    Raises:
        InputError: If there is none.
    """
    for design in DESIGNS:
        if name in (design.name, design.timm_name):
            return design
    known = ", ".join(design.timm_name for design in DESIGNS)
    raise InputError(f"`design` {name!r} is unknown; legal: {known}")


def _class_names(count: int) -> tuple[str, ...]:
    """ImageNet's, as its folders are called, where there are so many; else their numbers."""
    imagenet = ImageNetInfo("imagenet-1k").label_names()
    return tuple(imagenet) if count == len(imagenet) else tuple(map(str, range(count)))
