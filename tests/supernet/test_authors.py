"""The authors' checkpoints as weights of ours."""

import copy
import pickle
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from authors_checkpoints import NETWORKS, checkpoint, filled, image
from safetensors.torch import save_file
from samples import NANO
from torch import Tensor

from search_space import DESIGNS
from supernet import Network
from supernet.authors import checkpoint_filter_fn, converted, read_checkpoint
from supernet.network import skeleton

BY_NAME = {design.name: design for design in DESIGNS}

SCORES = {
    "Shunted-T": (1.49692, -0.1661, -1.23992, -1.40422),
    "LIT-Ti": (1.18469, -1.81922, 0.12219, -0.13486),
    "LIT-S": (-0.89503, -0.92221, 0.61995, 1.43084),
    "PSLT-Tiny": (0.58371, -0.7401, 0.08528, 1.42582),
    "DeiT-Ti": (1.0135, -0.14883, -0.44582, -0.7332),
    "PVT-Tiny": (0.39025, -1.27355, -0.13152, -0.91836),
}
"""What the authors' own code made of the image, of the first four classes: one of each layout."""


def save(file: Path, state: object) -> Path:
    torch.save(state, file)
    return file


def model_of(name: str, **arguments: Any) -> Any:
    return timm.create_model(BY_NAME[name].timm_name, **arguments).eval()


def moments(tensors: Iterable[Tensor]) -> Tensor:
    """How many numbers, their sum and that of their squares."""
    each = [
        torch.stack([t.new_tensor(t.numel()).double(), t.double().sum(), t.double().square().sum()])
        for t in tensors
    ]
    return torch.stack(each).sum(dim=0)


def shapes_alone(name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint without their numbers."""
    with torch.device("meta"):
        return {key: torch.empty(shape) for key, shape in checkpoint(name)}


@pytest.fixture(scope="module", params=SCORES)
def name(request: pytest.FixtureRequest) -> str:
    """A design, one of each layout."""
    return str(request.param)


@pytest.fixture(scope="module")
def state(name: str) -> dict[str, Tensor]:
    """A checkpoint of it; not to be changed."""
    return filled(checkpoint(name))


def test_a_checkpoint_gives_what_the_authors_code_gives(
    name: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    file = save(tmp_path / "weights.pth", {"model": state, "epoch": 299})
    with torch.no_grad():
        scores = model_of(name, checkpoint_path=str(file))(image(224))
    torch.testing.assert_close(scores[0, :4], torch.tensor(SCORES[name]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_ours_has_its_place_in_a_checkpoint(name: str) -> None:
    ours = skeleton(BY_NAME[name].architecture, num_classes=1000).state_dict()
    weights = converted(shapes_alone(name), BY_NAME[name])
    assert {key: t.shape for key, t in weights.items()} == {key: t.shape for key, t in ours.items()}


def test_every_number_of_a_checkpoint_has_one_place_in_ours(
    name: str, state: dict[str, Tensor]
) -> None:
    computed = {"relative_position_index", "attn_mask"}
    theirs = [t for key, t in state.items() if key.rpartition(".")[2] not in computed]
    ours = converted(state, BY_NAME[name]).values()
    torch.testing.assert_close(moments(ours), moments(theirs), rtol=1e-9, atol=0)


def test_what_has_our_names_is_as_it_was() -> None:
    network = model_of("DeiT-Ti")
    state = network.state_dict()
    weights = checkpoint_filter_fn(state, network)
    assert all(weights[name] is tensor for name, tensor in state.items())
    classifier = {name: tensor + 1 for name, tensor in state.items() if name.startswith("head.")}
    network.load_state_dict(classifier, strict=False)
    assert torch.equal(network.head.bias, classifier["head.bias"])


def test_the_published_weights_of_deit_in_timm_are_read_at_their_other_size() -> None:
    theirs: Any = timm.create_model("deit_tiny_patch16_224", img_size=384).eval()
    at_224: Any = timm.create_model("deit_tiny_patch16_224").eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(theirs.state_dict(), at_224)
    at_224.load_state_dict(state)
    ours = model_of("DeiT-Ti")
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(image(224)), at_224(image(224)), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["LIT-Ti", "LIT-S", "PVT-Tiny"])
def test_positions_of_other_sizes_are_resized(name: str) -> None:
    state = filled(checkpoint(name, side=288))
    for key, tensor in state.items():
        if "pos" in key:  # rises from the first place to the last
            state[key] = torch.linspace(0, 1, tensor.numel()).view(tensor.shape)
    weights = converted(state, BY_NAME[name])
    tables = [
        tensor
        for key, tensor in weights.items()
        if key.endswith("position.table") or key.endswith("position_bias.table")
    ]
    assert tables
    for table in tables:
        assert table[0].mean() < 0.15
        assert table[-1].mean() > 0.85


@pytest.mark.parametrize(
    ("design", "file_of", "told"),
    [
        ("Shunted-T", "Shunted-S", "Shunted-T: patch_embed1.conv.3.bias is missing"),
        ("Shunted-T", "PVT-Tiny", "Shunted-T: patch_embed1.conv.0.weight is missing"),
        ("DeiT-Ti", "DeiT-S", r"DeiT-Ti: patch_embed.proj.weight has the shape \[384, 3, 16, 16\]"),
        ("LIT-S", "LIT-M", "LIT-S, which has no layers.2.blocks.6.norm1.weight"),
        ("LIT-M", "LIT-S", "LIT-M: layers.2.blocks.6.norm1.weight is missing"),
        ("LIT-M", "LIT-B", r"LIT-M: patch_embed.proj.weight has the shape \[128, 3, 4, 4\]"),
        ("PSLT", "PSLT-Tiny", r"PSLT: patch_embed.proj.0.weight has the shape \[12, 3, 3, 3\]"),
    ],
)
def test_the_checkpoint_of_another_design_is_refused_by_name(
    design: str, file_of: str, told: str
) -> None:
    with pytest.raises(ValueError, match=f"^not the weights of {told}$"):
        converted(shapes_alone(file_of), BY_NAME[design])


def test_a_distilled_deit_is_another_design() -> None:
    state = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    with pytest.raises(ValueError, match="DeiT-Ti, which has no dist_token"):
        converted(state, BY_NAME["DeiT-Ti"])


def test_a_design_without_known_checkpoints_takes_none() -> None:
    state = filled(checkpoint("DeiT-Ti"))
    with pytest.raises(ValueError, match="PSViT-1D-Ti: no checkpoint of its authors is known"):
        model_of("PSViT-1D-Ti").load_state_dict(state)
    with pytest.raises(ValueError, match="no known design"):
        checkpoint_filter_fn(state, Network(NANO.scaled(0.0)))


def test_other_classes_get_a_fresh_classifier(tmp_path: Path) -> None:
    state = filled(checkpoint("DeiT-Ti"))
    overlay = {"file": str(save(tmp_path / "weights.pth", state))}
    same = model_of("DeiT-Ti", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(same.head.weight, state["head.weight"])
    other = model_of("DeiT-Ti", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=10)
    assert other.head.weight.shape == (10, 192)
    assert other.head.weight.std() < 0.03  # as drawn: theirs have 0.07
    assert torch.equal(other.stages[0].norm.weight, state["norm.weight"])
    tuned = filled(checkpoint("DeiT-Ti", classes=10))
    assert torch.equal(converted(tuned, BY_NAME["DeiT-Ti"])["head.weight"], tuned["head.weight"])


def test_a_model_of_features_has_the_weights(tmp_path: Path) -> None:
    state = filled(checkpoint("DeiT-Ti"))
    overlay = {"file": str(save(tmp_path / "weights.pth", state))}
    model = model_of("DeiT-Ti", pretrained=True, pretrained_cfg_overlay=overlay, features_only=True)
    assert torch.equal(model.model.stem.proj.weight, state["patch_embed.proj.weight"])


def test_a_copy_of_a_model_takes_the_authors_names_too() -> None:
    state = filled(checkpoint("DeiT-Ti"))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model_of("DeiT-Ti"))))
    copied.load_state_dict(state)
    assert torch.equal(copied.stem.proj.weight, state["patch_embed.proj.weight"])


def test_another_number_of_channels_is_adapted_as_timm_does(tmp_path: Path) -> None:
    state = filled(checkpoint("DeiT-Ti"))
    overlay = {"file": str(save(tmp_path / "weights.pth", state))}
    grey = model_of("DeiT-Ti", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1)
    expected = state["patch_embed.proj.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.stem.proj.weight, expected)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema", None])
def test_wrappers_of_training_scripts_are_opened(wrapper: str | None, tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in filled(checkpoint("DeiT-Ti")).items()}
    wrapped = {wrapper: state, "epoch": 3} if wrapper else state
    read = read_checkpoint(save(tmp_path / "weights.pth", wrapped))
    assert read.keys() == dict(checkpoint("DeiT-Ti")).keys()
    save_file(state, tmp_path / "weights.safetensors")
    assert read_checkpoint(tmp_path / "weights.safetensors").keys() == read.keys()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "w.pth").read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        (tmp_path / "w.pth").write_bytes(damaged[: rng.choice((None, rng.randrange(len(whole))))])
        try:
            read_checkpoint(tmp_path / "w.pth")
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


@pytest.mark.parametrize("shape", [(), (0,), (3, 7), (192, 1)])
@pytest.mark.parametrize("name", ["head.bias", "pos_embed", "blocks.0.attn.qkv.weight"])
def test_a_tensor_of_a_wrong_shape_is_named(name: str, shape: tuple[int, ...]) -> None:
    state = shapes_alone("DeiT-Ti")
    state[name] = torch.empty(shape, device="meta")
    with pytest.raises(ValueError, match=r"^not the weights of DeiT-Ti: .* has the shape"):
        converted(state, BY_NAME["DeiT-Ti"])


class Foreign:
    """What a checkpoint may hold that nothing should unpickle."""


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (b"", "no checkpoint that can be read"),
        (b"no zip file, no pickle", "no checkpoint that can be read"),
        ([1, 2], "no checkpoint that can be read"),
        ({"model": {"a": 1}}, "it holds other things than tensors by name"),
        ({"model": {}}, "it holds other things than tensors by name"),
        ({"model": {"a": torch.zeros(1)}, "config": Foreign()}, "no checkpoint that can be read"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(
    held: object, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(held) if isinstance(held, bytes) else save(file, held)
    with pytest.raises(ValueError, match=told) as refused:
        read_checkpoint(file)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
