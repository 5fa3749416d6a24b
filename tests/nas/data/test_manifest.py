import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import Data, load_data
from nas.data.dataset import Role
from nas.data.manifest import Manifest, content_digest
from nas.utilities.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of twelve images, all of them different."""
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "bugs" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 255, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "bugs" / name / f"{number}.png")
    return tmp_path / "bugs"


def load(root: Path) -> Data:
    return load_data(str(root), image_size=32, seed=0)


def manifest(root: Path, known: Manifest | None = None) -> Manifest:
    return Manifest.of(load(root), known)


def test_a_manifest_has_every_image_of_every_split_once(root: Path, tmp_path: Path) -> None:
    made = manifest(root)
    assert {role: split.images for role, split in made.splits.items()} == {
        "train": 16,
        "search": 4,
        "test": 4,
    }
    assert sorted(made.files) == sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*.png")
    )
    assert all(file.size == (root / file.path).stat().st_size for file in made.files.values())
    assert made.class_names == ["ant", "bee"]
    assert [path.startswith("bee/") for path, *_ in made.splits["test"].files["bee"]] == [True] * 2
    made.save(tmp_path / "data.json")
    assert Manifest.load(tmp_path / "data.json") == made


def test_the_same_images_elsewhere_are_the_same_data(root: Path, tmp_path: Path) -> None:
    before = manifest(root)
    shutil.copytree(root, tmp_path / "copy")
    assert before.difference(manifest(tmp_path / "copy")) is None


def _remove(root: Path) -> None:
    (root / "ant" / "3.png").unlink()


def _add(root: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(root / "bee" / "30.png")


def _change(root: Path) -> None:
    before = (root / "ant" / "5.png").stat()
    content = (root / "ant" / "5.png").read_bytes()
    (root / "ant" / "5.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(root / "ant" / "5.png", ns=(before.st_atime_ns, before.st_mtime_ns))


def _rename(root: Path) -> None:
    (root / "ant" / "5.png").rename(root / "bee" / "five.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_remove, "1 gone (ant/3.png)"),
        (_add, "1 new (bee/30.png)"),
        (_change, "1 changed (ant/5.png)"),
        (_rename, "1 renamed (ant/5.png to bee/five.png)"),
    ],
)
def test_whatever_becomes_of_an_image_is_told(
    root: Path, change: Callable[[Path], None], told: str
) -> None:
    before = manifest(root)
    data = load(root)
    change(root)
    if change is not _change:  # which leaves an image that Pillow may refuse
        data = load(root)
    assert before.difference(Manifest.of(data, before)) == told


def test_files_that_did_not_change_are_not_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = manifest(root)
    data = load(root)

    def read(path: Path, size: int) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("nas.data.manifest.content_digest", read)
    assert Manifest.of(data, before) == before


def test_the_digest_of_a_large_file_is_of_its_first_middle_and_last_parts(tmp_path: Path) -> None:
    def digest(*changed: int) -> str:
        content = bytearray(1 << 20)
        for position in changed:
            content[position] = 1
        (tmp_path / "file").write_bytes(content)
        return content_digest(tmp_path / "file", len(content))

    middle = 1 << 19
    assert len({digest(), digest(0), digest(middle), digest((1 << 20) - 1)}) == 4
    assert digest(1 << 18) == digest()  # the price of being cheap


def test_an_image_in_two_splits_is_a_leak_under_whatever_name(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(root, tmp_path / "split" / split)
    for path in (tmp_path / "split" / "test").rglob("*.png"):
        if path.name != "7.png" or path.parent.name != "bee":
            Image.open(path).rotate(90).save(path)
    (tmp_path / "split" / "test" / "bee" / "7.png").rename(
        tmp_path / "split" / "test" / "bee" / "seven.png"
    )
    data = load(tmp_path / "split")
    leaks = Manifest.of(data).leaks(tmp_path / "split")
    role = "search" if "train/bee/7.png" in _paths(data, "search") else "train"
    assert leaks == [f"leak: 1 images of test are in {role}, too (train/bee/7.png = "
                     "test/bee/seven.png)"]  # fmt: skip
    assert manifest(root).leaks(root) == []


def _paths(data: Data, role: Role) -> list[str]:
    split = Manifest.of(data).splits[role]
    return [file.path for files in split.files.values() for file in files]


def test_data_that_are_no_files_are_known_by_their_numbers_and_labels() -> None:
    digits = load_data("digits", image_size=32, seed=0)
    made = Manifest.of(digits)
    assert made.files == {} and made.splits["search"].images == len(digits.search)
    fewer = made.model_copy(update={"splits": made.splits | {"test": made.splits["search"]}})
    assert "the test split has" in (made.difference(fewer) or "")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 3}', "\x00\xff"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text, encoding="latin1")
    with pytest.raises(InputError, match=r"data\.json: damaged"):
        Manifest.load(path)


def test_names_of_images_that_are_not_utf8_are_kept(root: Path, tmp_path: Path) -> None:
    os.rename(root / "ant" / "1.png", os.fsencode(root / "ant") + b"/\xe9.png")
    made = manifest(root)
    assert "ant/\\xe9.png" in made.files
    made.save(tmp_path / "data.json")
    assert Manifest.load(tmp_path / "data.json") == made


def test_an_image_in_two_splits_is_a_leak_if_its_name_is_not_utf8(
    root: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        shutil.copytree(root, tmp_path / "split" / split)
    for path in (tmp_path / "split" / "test").rglob("*.png"):
        if path.name != "7.png" or path.parent.name != "bee":
            Image.open(path).rotate(90).save(path)
    old = tmp_path / "split" / "test" / "bee" / "7.png"
    os.rename(old, os.fsencode(old.parent) + b"/\xe9.png")
    (leak,) = manifest(tmp_path / "split").leaks(tmp_path / "split")
    assert "= test/bee/\\xe9.png" in leak
