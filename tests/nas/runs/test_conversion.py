"""`convert`: an authors' checkpoint becomes an export of ours."""

from pathlib import Path

import pytest
import timm
import torch
from authors_checkpoints import checkpoint, filled
from small_runs import command

from nas.export.pretrained import read_pretrained
from nas.utilities.errors import InputError
from search_space import DESIGNS
from supernet import load_exported

DESIGN = next(design for design in DESIGNS if design.name == "PSLT-Tiny")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authors") / "pslt_tiny.pth"
    torch.save({"model": filled(checkpoint("PSLT-Tiny")), "epoch": 299}, path)
    return path


@pytest.fixture(scope="module")
def converted(file: Path) -> Path:
    folder = file.parent / "converted"
    outcome = command("convert", file, "--design", "pslt_tiny", "--out", folder)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"{folder}: 4,298,988 parameters, 1000 classes\n"
    return folder


def test_a_converted_checkpoint_is_an_export_like_any_other(file: Path, converted: Path) -> None:
    network, about = load_exported(converted)
    assert network.architecture == DESIGN.architecture.canonical()
    assert (about.num_classes, about.image_size, about.crop_pct) == (1000, 224, 0.875)
    assert about.class_names[:2] == ("n01440764", "n01443537")
    created = timm.create_model("subnet", architecture=converted, pretrained=True).eval()
    by_file = timm.create_model("pslt_tiny", checkpoint_path=str(file)).eval()
    for other in (created.state_dict(), by_file.state_dict()):
        assert all(torch.equal(other[name], t) for name, t in network.state_dict().items())


def test_the_card_says_whose_weights_they_are(converted: Path) -> None:
    card = (converted / "README.md").read_text()
    assert card.startswith("# PSLT-Tiny\n")
    assert "arXiv 2304.03481" in card
    assert "pslt\\_tiny.pth" in card
    assert "resized\nto 256 px (bicubic), and the middle 224 × 224 are kept" in card
    assert read_pretrained(converted).digest in card


def test_a_file_and_what_it_was_converted_to_are_the_same_weights(
    file: Path, converted: Path
) -> None:
    theirs, ours = read_pretrained(file), read_pretrained(converted / "architecture.json")
    assert (theirs.name, ours.name) == ("PSLT-Tiny", "converted")
    assert theirs.digest == ours.digest
    with torch.no_grad():
        ours.network.head.bias[0] += 1
    assert theirs.digest != ours.digest


@pytest.mark.parametrize(
    ("name", "design", "told"),
    [
        ("pslt_tiny.pth", "pslt", "PSLT: patch_embed.proj.0.weight has the shape [12, 3, 3, 3]"),
        ("pslt_tiny.pth", "psvit_1d_ti", "PSViT-1D-Ti: no checkpoint of its authors is known"),
        ("pslt_tiny.pth", "swin", "--design 'swin' is unknown; legal: shunted_t, "),
        ("absent.pth", "pslt", "absent.pth: no such file"),
        ("text.pth", "pslt", "text.pth: no checkpoint that can be read"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(
    file: Path, tmp_path: Path, name: str, design: str, told: str
) -> None:
    (file.parent / "text.pth").write_text("weights")
    out = tmp_path / "out"
    outcome = command("convert", file.parent / name, "--design", design, "--out", out)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert told in outcome.err
    assert not out.exists()


def test_a_file_is_no_folder_to_convert_into(file: Path) -> None:
    outcome = command("convert", file, "--design", "pslt_tiny", "--out", file)
    assert outcome.err == f"error: --out {file} is a file; give the name of a folder\n"


def test_a_folder_of_other_files_is_left_alone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for out in (tmp_path, "."):
        outcome = command("convert", file, "--design", "pslt_tiny", "--out", out)
        assert outcome.status == 2
        assert outcome.err == (
            f"error: --out {tmp_path}: holds other files; give an empty or a new folder\n"
        )
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_checkpoint_of_nothing_that_is_known_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other.pth: no checkpoint of Shunted-T, "):
        read_pretrained(tmp_path / "other.pth")
    with pytest.raises(InputError, match="cannot be read"):
        read_pretrained(tmp_path)
