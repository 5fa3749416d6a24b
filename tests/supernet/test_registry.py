from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from samples import NANO, randomise
from small_runs import Fork

import supernet
from search_space import (
    DESIGNS,
    Architecture,
    ArchitectureError,
    PublishedDesign,
    total_cost,
)
from supernet import ExportedNetwork, Network, save_exported

ARCHITECTURE = NANO.scaled(0.0)
TASK = ExportedNetwork(
    num_classes=6,
    image_size=48,
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    class_names=("a", "b", "c", "d", "e", "f"),
)
IMAGES = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exported() -> Network:
    network = Network(ARCHITECTURE, num_classes=TASK.num_classes)
    randomise(network.state_dict())
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path, exported: Network) -> Path:
    save_exported(tmp_path, exported, TASK)
    return tmp_path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with an architecture and no weights."""
    (tmp_path / "architecture.json").write_text(ARCHITECTURE.to_json())
    return tmp_path


WAYS: dict[str, Callable[[Path], Path | str]] = {
    "folder": lambda folder: folder,
    "file": lambda folder: folder / "architecture.json",
    "text": lambda folder: str(folder / "architecture.json"),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


@pytest.mark.slow
def test_importing_supernet_registers_its_models_with_timm() -> None:
    program = """
import sys
for name in list(sys.modules):
    if name.partition(".")[0] in ("nas", "search_space", "supernet", "timm"):
        del sys.modules[name]
import timm
assert not timm.is_model("subnet")
import supernet
assert timm.is_model("subnet")
assert timm.list_models("shunted_*") == ["shunted_b", "shunted_s", "shunted_t"]
from search_space import DESIGNS
assert all(timm.list_models(design.timm_name) == [design.timm_name] for design in DESIGNS)
"""
    done = Fork("-c", program).finish()
    assert done.status == 0, done.err
    assert "subnet" in supernet.__all__


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
@pytest.mark.sampled(2)
def test_published_designs_are_timm_models(design: PublishedDesign) -> None:
    with torch.device("meta"):
        model = timm.create_model(
            design.timm_name, num_classes=10, drop_path_rate=0.1, img_size=(160, 192)
        )
    assert model.architecture == design.architecture
    cost = total_cost(design.architecture, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.params
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 160, 192)
    with pytest.raises(ValueError, match=f"{design.timm_name} has no pretrained weights"):
        timm.create_model(design.timm_name, pretrained=True)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
@pytest.mark.sampled(2)
def test_positions_are_not_decayed_and_offsets_train_slowly(design: PublishedDesign) -> None:
    with torch.device("meta"):
        model = timm.create_model(design.timm_name)
    parameters, settings = dict(model.named_parameters()), model.parameter_settings()
    assert settings.keys() == parameters.keys()
    undecayed = {n for n, p in parameters.items() if p.ndim == 1 or n.endswith(".table")}
    assert {name for name, setting in settings.items() if not setting.decayed} == undecayed
    assert model.no_weight_decay() == undecayed
    slow = {name: setting.lr_scale for name, setting in settings.items() if setting.lr_scale != 1}
    assert slow == {name: 0.01 for name in parameters if ".offset." in name}
    assert bool(slow) == design.name.startswith("LIT")


def test_an_architecture_gives_a_fresh_network_of_1000_classes() -> None:
    model = timm.create_model("subnet", architecture=ARCHITECTURE)
    assert model.architecture == ARCHITECTURE
    assert (model.num_classes, model.in_chans) == (1000, 3)
    assert model(IMAGES).shape == (2, 1000)


@ways
def test_a_file_or_folder_gives_its_architecture_for_the_task_of_its_weights(
    folder: Path, exported: Network, way: Callable[[Path], Path | str]
) -> None:
    model = timm.create_model("subnet", architecture=way(folder))
    assert model.architecture == ARCHITECTURE
    assert (model.num_classes, model.in_chans) == (TASK.num_classes, 3)
    assert not torch.equal(model.head.weight, exported.head.weight)  # fresh unless asked


def test_an_architecture_without_weights_beside_it_has_1000_classes(bare: Path) -> None:
    assert timm.create_model("subnet", architecture=bare).num_classes == 1000


@ways
def test_pretrained_reproduces_the_exported_network(
    folder: Path, exported: Network, way: Callable[[Path], Path | str]
) -> None:
    model = timm.create_model("subnet", architecture=way(folder), pretrained=True).eval()
    torch.testing.assert_close(model.state_dict(), exported.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(model(IMAGES), exported(IMAGES))


def test_pretrained_with_the_same_number_of_classes_keeps_the_classifier(
    folder: Path, exported: Network
) -> None:
    model = timm.create_model("subnet", architecture=folder, pretrained=True, num_classes=6)
    torch.testing.assert_close(model.eval()(IMAGES), exported(IMAGES))


@pytest.mark.parametrize("classes", [9, 0])
def test_pretrained_with_other_classes_keeps_all_but_the_classifier(
    folder: Path, exported: Network, classes: int
) -> None:
    model = timm.create_model("subnet", architecture=folder, pretrained=True, num_classes=classes)
    assert model.num_classes == classes
    features = model.eval().forward_features(IMAGES)
    torch.testing.assert_close(features, exported.forward_features(IMAGES))
    assert model(IMAGES).shape == (2, classes or model.num_features)


def test_classes_channels_and_stochastic_depth_can_be_chosen(bare: Path) -> None:
    model = timm.create_model(
        "subnet", architecture=bare, num_classes=3, in_chans=1, drop_path_rate=0.2
    )
    assert model(IMAGES[:, :1]).shape == (2, 3)
    assert model.stages[-1].blocks[-1].drop_path2.drop_prob == 0.2


def test_pretrained_without_weights_is_refused(bare: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained=True, but no weights\.safetensors"):
        timm.create_model("subnet", architecture=bare, pretrained=True)
    with pytest.raises(ValueError, match="pretrained=True needs the architecture's file"):
        timm.create_model("subnet", architecture=ARCHITECTURE, pretrained=True)


def test_unknown_arguments_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"subnet\(\) takes no argument 'norm_layer'"):
        timm.create_model("subnet", architecture=ARCHITECTURE, norm_layer="layernorm")
    with pytest.raises(TypeError, match=r"shunted_t\(\) takes no argument 'img_sizes'"):
        timm.create_model("shunted_t", img_sizes=224)
    with pytest.raises(TypeError, match="out_indices only with features_only"):
        timm.create_model("shunted_t", out_indices=(1,))
    with pytest.raises(TypeError, match="architecture"):
        timm.create_model("subnet")


def test_arguments_that_timms_scripts_give_are_taken_where_they_change_nothing() -> None:
    model = timm.create_model(
        "subnet",
        architecture=ARCHITECTURE,
        num_classes=None,
        drop_rate=0.0,
        drop_path_rate=None,
        drop_block_rate=None,
        global_pool="avg",
        bn_momentum=None,
        bn_eps=None,
        scriptable=False,
        checkpoint_path="",
    )
    assert (model.num_classes, model.global_pool) == (1000, "avg")


@pytest.mark.parametrize(
    ("argument", "value", "legal"),
    [("drop_rate", 0.1, "0.0"), ("bn_momentum", 0.01, "0.1"), ("bn_eps", 1e-3, "1e-05")],
)
def test_what_a_network_cannot_do_is_refused_by_name(
    argument: str, value: float, legal: str
) -> None:
    with pytest.raises(TypeError, match=rf"takes {argument}={legal} alone, not {value}"):
        timm.create_model("subnet", architecture=ARCHITECTURE, **{argument: value})


def test_poolings_that_a_network_lacks_are_refused_with_those_that_it_has() -> None:
    with pytest.raises(ValueError, match=r"global_pool='token'; legal: 'avg', ''"):
        timm.create_model("subnet", architecture=ARCHITECTURE, global_pool="token")
    with pytest.raises(ValueError, match=r"global_pool='max'; legal: 'token', 'avg', ''"):
        timm.create_model("deit_ti", global_pool="max")


def test_a_network_cannot_be_scripted_and_says_so() -> None:
    with pytest.raises(TypeError, match="cannot be scripted: compile or trace it"):
        timm.create_model("subnet", architecture=ARCHITECTURE, scriptable=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"nowhere\.json: cannot be read"):
        timm.create_model("subnet", architecture=tmp_path / "nowhere.json")


def test_timm_resolves_the_images_that_exported_weights_were_trained_on(folder: Path) -> None:
    model = timm.create_model("subnet", architecture=folder, pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 48, 48)
    assert config["mean"] == TASK.mean
    assert config["std"] == TASK.std
    assert config["crop_pct"] == 1.0


def test_timm_resolves_imagenets_images_for_fresh_networks() -> None:
    model = timm.create_model("subnet", architecture=ARCHITECTURE, num_classes=2, in_chans=3)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 224, 224)
    assert config["mean"] == timm.data.IMAGENET_DEFAULT_MEAN
    assert config["std"] == timm.data.IMAGENET_DEFAULT_STD
    assert model.default_cfg["classifier"] == "head"
    assert model.pretrained_cfg["num_classes"] == 2


def test_an_architecture_that_was_edited_after_export_is_refused(folder: Path) -> None:
    edited = Architecture.from_json(NANO.scaled(1.0).to_json())
    (folder / "architecture.json").write_text(edited.to_json())
    with pytest.raises(ValueError, match="not the weights of the architecture beside it"):
        timm.create_model("subnet", architecture=folder, pretrained=True)
