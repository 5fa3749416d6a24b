import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data.images import check_image, eval_transform, read_image, train_transform
from nas.utilities.errors import InputError
from nas.utilities.seeding import seed_global_generators


def save(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    grey = Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode)
    image = read_image(save(grey, tmp_path / ("a.tif" if mode == "CMYK" else "a.png")))
    assert image.mode == "RGB" and image.size == (9, 7)
    assert np.asarray(image).min() == 255


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_greys_keep_their_shades(suffix: str, tmp_path: Path) -> None:
    shades = np.array([[0, 256, 32768, 65535]], np.uint16)
    path = save(Image.fromarray(shades), tmp_path / f"a.{suffix}")
    assert np.asarray(read_image(path))[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_a_16_bit_file_keep_their_shades(bits: int, tmp_path: Path) -> None:
    shades = np.array([[0, 2 ** (bits - 2), 2 ** (bits - 1), 2**bits - 1]], np.uint16)
    path = save(Image.fromarray(shades), tmp_path / "a.png")
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize(
    ("values", "bytes_"),
    [
        ((0.0, 0.5, 1.0), (0, 128, 255)),
        ((0.1, 0.2, 0.2), (26, 51, 51)),
        ((0.0, 100.0, 200.0), (0, 100, 200)),
        ((-1.0, 0.0, 1.0), (0, 128, 255)),
        ((1000.0, 2000.0, 3000.0), (0, 128, 255)),
        ((700.0, 700.0, 700.0), (0, 0, 0)),
    ],
)
def test_floating_point_images_keep_their_shades(
    values: tuple[float, ...], bytes_: tuple[int, ...], tmp_path: Path
) -> None:
    path = save(Image.fromarray(np.array([values], np.float32)), tmp_path / "a.tif")
    assert np.asarray(read_image(path))[0, :, 1].tolist() == list(bytes_)


def test_colours_of_lab_images_are_converted(tmp_path: Path) -> None:
    path = save(Image.frombytes("LAB", (1, 2), bytes([255, 0, 0, 0, 0, 0])), tmp_path / "a.tif")
    white, black = np.asarray(read_image(path))[:, 0].astype(int)
    assert white.min() >= 253 and black.max() <= 2


@pytest.mark.parametrize("decode", [read_image, check_image])
def test_a_pixel_that_is_not_finite_is_refused_by_name(
    decode: Callable[[Path], object], tmp_path: Path
) -> None:
    pixels = np.array([[0, np.inf]], np.float32)
    path = save(Image.fromarray(pixels), tmp_path / "a.tif")
    with pytest.raises(InputError, match=f"^{path}: broken image .a pixel is not a finite number"):
        decode(path)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_broken_image_is_named_in_one_line(suffix: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"hello", "truncated": whole[: len(whole) // 2]}[damage]
    )
    for decode in (read_image, check_image):
        with pytest.raises(InputError) as caught:
            decode(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: broken image") and "\n" not in message


def test_an_image_without_a_path_is_called_by_the_name_given() -> None:
    with pytest.raises(InputError, match=r"^hfds/x, image 3: broken image"):
        read_image(io.BytesIO(b"nothing"), "hfds/x, image 3")


@pytest.mark.parametrize("augment", ["light", "full"])
def test_training_transforms_are_random_functions_of_the_global_generators(augment: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    transform = train_transform(32, augment)  # type: ignore[arg-type]
    outputs = []
    for seed in (0, 0, 1):
        seed_global_generators(seed)
        outputs.append(transform(Image.fromarray(pixels)))
    assert outputs[0].shape == (3, 32, 32) and outputs[0].dtype == torch.uint8
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_light_augmentation_keeps_colours_and_at_least_half_of_the_image() -> None:
    red_and_blue = np.zeros((64, 64, 3), np.uint8)
    red_and_blue[:32, :, 0] = red_and_blue[32:, :, 2] = 200
    transform = train_transform(32, "light")
    for seed in range(30):
        seed_global_generators(seed)
        image = transform(Image.fromarray(red_and_blue))
        assert image[1].max() == 0  # no colour is shifted
        assert image[0, 0].min() > 150 and image[2, -1].min() > 150  # both halves, not upside down


def test_the_evaluation_transform_crops_the_centre() -> None:
    framed = np.full((100, 100, 3), 255, np.uint8)
    framed[2:-2, 2:-2] = 0
    whole = eval_transform(50, 1.0)(Image.fromarray(framed))
    centre = eval_transform(50, 0.9)(Image.fromarray(framed))
    assert whole.shape == centre.shape == (3, 50, 50)
    assert whole[:, 0].min() > 200
    assert centre.max() < 30
