"""A classifier of timm that a user gives as a teacher."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from given_teachers import MODEL, classifier, teacher_file
from safetensors.torch import save_file
from small_runs import NANO
from torch import Tensor
from torch.nn import functional as F

from nas.data import Data, load_data, materialise, normalise
from nas.training.given_teacher import GivenTeacher, given_teacher, scores_of_places
from nas.training.loop import autocast
from nas.utilities.errors import InputError
from supernet import ExportedNetwork, Network, save_exported


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=64, seed=0)


def read(asked: str, data: Data, *, token_labels: bool = False) -> GivenTeacher:
    teacher = given_teacher(asked, data, token_labels=token_labels)
    assert teacher is not None
    return teacher


def exported(folder: Path, *names: str) -> Path:
    """An export of ours for classes of these names."""
    torch.manual_seed(0)
    about = ExportedNetwork(
        num_classes=len(names), image_size=64, mean=(0.1,) * 3, std=(0.2,) * 3, class_names=names
    )
    folder.mkdir()
    save_exported(folder, Network(NANO.scaled(0.0), num_classes=len(names)), about)
    return folder


def local_dir(folder: Path, model: torch.nn.Module, **config: object) -> str:
    """A folder that timm creates the model from."""
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": MODEL, "num_classes": 10, "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def scores(model: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), autocast(torch.device("cpu")):
        return model(images).float()


def test_a_checkpoint_of_timms_training_teaches_at_the_size_that_it_was_trained_at(
    tmp_path: Path, digits: Data
) -> None:
    teacher = read(f"{MODEL}:{teacher_file(tmp_path, size=96)}", digits)
    assert teacher.size == (96, 96)
    assert (teacher.mean, teacher.std) == ((0.5,) * 3, (0.25,) * 3)
    assert teacher.interpolation == "bilinear"
    for name, tensor in classifier().state_dict().items():
        assert torch.equal(teacher.model.state_dict()[name], tensor)


def test_other_files_teach_as_timm_says_of_the_model(tmp_path: Path, digits: Data) -> None:
    save_file(classifier().state_dict(), tmp_path / "weights.safetensors")
    teacher = read(f"{MODEL}:{tmp_path / 'weights.safetensors'}", digits)
    assert teacher.size == timm.get_pretrained_cfg(MODEL).input_size[1:] == (160, 160)


def test_a_folder_that_timm_creates_models_from_teaches_as_its_configuration_says(
    tmp_path: Path, digits: Data
) -> None:
    asked = local_dir(
        tmp_path / "own", classifier(), input_size=(3, 64, 64), mean=(0.3,) * 3, std=(0.2,) * 3
    )
    teacher = read(asked, digits)
    assert (teacher.size, teacher.mean) == ((64, 64), (0.3,) * 3)


def test_the_teacher_gets_the_very_images_as_its_own_configuration_says(
    tmp_path: Path, digits: Data
) -> None:
    teacher = read(f"{MODEL}:{teacher_file(tmp_path)}", digits)
    images, _ = materialise(digits.search, limit=4, seed=0)
    ask = teacher.asker(digits, torch.device("cpu"))
    found = ask(normalise(images, digits.mean, digits.std))
    expected = scores(classifier(), (images / 255 - 0.5) / 0.25)
    torch.testing.assert_close(found.scores, expected, rtol=2e-2, atol=2e-2)
    assert found.places is None


def test_images_of_another_size_are_resized_for_the_teacher(tmp_path: Path, digits: Data) -> None:
    teacher = read(f"{MODEL}:{teacher_file(tmp_path, size=96)}", digits)
    plain = torch.tensor([0, 100, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    small, large = plain.expand(3, 3, 64, 64), plain.expand(3, 3, 96, 96)
    ask = teacher.asker(digits, torch.device("cpu"))
    found = ask(normalise(small, digits.mean, digits.std)).scores
    expected = scores(classifier(), (large / 255 - 0.5) / 0.25)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_a_teacher_is_frozen_and_counts_on_no_batch(tmp_path: Path, digits: Data) -> None:
    teacher = read(f"{MODEL}:{teacher_file(tmp_path)}", digits)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    images = torch.randn(4, 3, 64, 64, requires_grad=True)
    found = teacher.answers(images, mean=digits.mean, std=digits.std).scores
    assert not found.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    single = teacher.answers(images[:1], mean=digits.mean, std=digits.std).scores
    torch.testing.assert_close(single, found[:1], rtol=2e-2, atol=2e-2)
    for name, tensor in teacher.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_an_export_of_ours_teaches(tmp_path: Path, digits: Data) -> None:
    folder = exported(tmp_path / "best", *digits.class_names)
    teacher = read(f"subnet:{folder}", digits, token_labels=True)
    assert (teacher.size, teacher.mean) == ((64, 64), (0.1,) * 3)
    assert teacher.identity.startswith("subnet ")


def test_the_identity_is_that_of_the_weights_and_of_the_images_wherever_the_file_lies(
    tmp_path: Path, digits: Data
) -> None:
    first = read(f"{MODEL}:{teacher_file(tmp_path / 'a')}", digits)
    moved = read(f"{MODEL}:{teacher_file(tmp_path / 'b')}", digits)
    trained = read(f"{MODEL}:{teacher_file(tmp_path / 'c', seed=1)}", digits)
    larger = read(f"{MODEL}:{teacher_file(tmp_path / 'd', size=96)}", digits)
    assert first.identity == moved.identity
    assert first.identity.startswith(f"{MODEL} ")
    assert len({teacher.identity for teacher in (first, trained, larger)}) == 3


def test_a_teacher_reaches_other_processes_whole(tmp_path: Path, digits: Data) -> None:
    teacher = read(f"{MODEL}:{teacher_file(tmp_path)}", digits, token_labels=True)
    there = pickle.loads(pickle.dumps(teacher))
    images = torch.randn(2, 3, 64, 64)
    answers = (some.answers(images, mean=digits.mean, std=digits.std) for some in (teacher, there))
    for one, other in zip(*answers, strict=True):
        assert torch.equal(one, other)


def test_reading_a_teacher_draws_nothing_from_the_global_generators(
    tmp_path: Path, digits: Data
) -> None:
    file = teacher_file(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    read(f"{MODEL}:{file}", digits)
    assert torch.equal(torch.rand(1), expected)


# Token labels.


def test_places_of_a_residual_network_are_scored_by_its_classifier() -> None:
    model = classifier()
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        places = scores_of_places(model, model.forward_features(images))
        weight = model.fc.weight[..., None, None]
        expected = F.conv2d(model.forward_features(images), weight, model.fc.bias)
    assert places.shape == (2, 10, 3, 2)
    torch.testing.assert_close(places, expected, rtol=1e-4, atol=1e-4)


def test_places_of_a_map_with_its_channels_last_are_scored_alike() -> None:
    torch.manual_seed(0)
    network = Network(NANO.scaled(0.0), num_classes=10).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        places = scores_of_places(network, network.forward_features(images))
        expected = network.head(network.forward_features(images)).permute(0, 3, 1, 2)
    assert places.shape == (2, 10, 4, 6)
    torch.testing.assert_close(places, expected, rtol=1e-4, atol=1e-4)


def test_the_scores_are_the_mean_of_those_of_the_places(tmp_path: Path, digits: Data) -> None:
    teacher = read(f"{MODEL}:{teacher_file(tmp_path)}", digits, token_labels=True)
    images = torch.randn(3, 3, 64, 64)
    found = teacher.answers(images, mean=digits.mean, std=digits.std)
    assert found.places is not None
    assert found.places.shape == (3, 10, 2, 2)
    plain = replace(teacher, token_labels=False)
    expected = plain.answers(images, mean=digits.mean, std=digits.std).scores
    torch.testing.assert_close(found.scores, expected, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("name", ["convnext_atto", "test_vit", "mobilenetv3_small_050"])
def test_token_labels_of_a_teacher_whose_places_say_nothing_of_the_whole_are_refused(
    tmp_path: Path, digits: Data, name: str
) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(classifier(name).state_dict(), file)
    assert read(f"{name}:{file}", digits)
    with pytest.raises(InputError, match=f"^`teacher` {name}.*: `token_labels` need a classifier"):
        read(f"{name}:{file}", digits, token_labels=True)


def test_token_labels_of_a_map_of_one_place_are_refused(tmp_path: Path, digits: Data) -> None:
    file = teacher_file(tmp_path, size=32)
    with pytest.raises(InputError, match="of 32 × 32 px its last map is 1 × 1"):
        read(f"{MODEL}:{file}", digits, token_labels=True)


def test_token_labels_need_a_teacher(digits: Data) -> None:
    assert given_teacher(None, digits, token_labels=False) is None
    with pytest.raises(InputError, match=r"`token_labels`.* `teacher`"):
        given_teacher(None, digits, token_labels=True)


# What is refused.


def absent(folder: Path) -> str:
    return f"{MODEL}:{folder / 'absent.pth'}"


def text(folder: Path) -> str:
    (folder / "text.pth").write_text("weights")
    return f"{MODEL}:{folder / 'text.pth'}"


def other_classes(folder: Path) -> str:
    return f"{MODEL}:{teacher_file(folder, classes=7)}"


def another_architecture(folder: Path) -> str:
    return f"test_efficientnet:{teacher_file(folder)}"


def half_the_names(folder: Path) -> str:
    state = classifier().state_dict()
    del state["fc.bias"]
    save_file(state, folder / "half.safetensors")
    return f"{MODEL}:{folder / 'half.safetensors'}"


def more_names(folder: Path) -> str:
    save_file({**classifier().state_dict(), "gate": torch.zeros(1)}, folder / "more.safetensors")
    return f"{MODEL}:{folder / 'more.safetensors'}"


def no_numbers(folder: Path) -> str:
    state = classifier().state_dict()
    state["fc.bias"][0] = torch.nan
    save_file(state, folder / "nan.safetensors")
    return f"{MODEL}:{folder / 'nan.safetensors'}"


def other_names(folder: Path) -> str:
    return f"subnet:{exported(folder / 'best', *'012345678', 'nine')}"


def another_order(folder: Path) -> str:
    names = list("1023456789")
    return local_dir(folder / "own", classifier(), label_names=names, input_size=(3, 64, 64))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (absent, "absent.pth: no such file"),
        (text, "text.pth: no checkpoint that can be read"),
        (other_classes, "it tells 7 classes apart, and the data have 10"),
        (lambda _: MODEL, "it tells 1,000 classes apart, and the data have 10"),
        (another_architecture, "not the weights of test_efficientnet: conv_stem.weight is missing"),
        (half_the_names, "not the weights of test_resnet: fc.bias is missing"),
        (more_names, "not the weights of test_resnet: it has no gate"),
        (no_numbers, "class scores are infinite or not a number"),
        (other_names, "its class 9 is 'nine', and that of the data '9'"),
        (another_order, "its class 0 is '1', and that of the data '0'"),
        (lambda _: "resnet2", "resnet2: timm cannot make it: Unknown model"),
        (lambda _: "best/weights", "timm cannot make it: Model name 'best/weights' has no source"),
        (lambda _: f"{MODEL}:", "legal: MODEL, or MODEL:CHECKPOINT"),
        (lambda _: "subnet", "legal: subnet:FOLDER, of an export"),
        (lambda _: "", "legal: MODEL, or MODEL:CHECKPOINT"),
        (lambda _: "local-dir:", "legal: MODEL, or MODEL:CHECKPOINT"),
        (lambda folder: f"local-dir:{folder}", "timm cannot make it: Config file not found"),
    ],
)
def test_what_is_no_teacher_of_these_classes_is_refused_in_a_line(
    tmp_path: Path, digits: Data, given: Callable[[Path], str], told: str
) -> None:
    asked = given(tmp_path)
    with pytest.raises(InputError) as raised:
        read(asked, digits)
    line = str(raised.value)
    assert line.startswith(f"`teacher` {asked}: ")
    assert told in line
    assert "\n" not in line
