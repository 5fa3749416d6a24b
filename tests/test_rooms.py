"""The rooms of the house: who may import whom, and what is loaded only when it is used."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROOMS = (
    "search_space",
    "supernet",
    "nas.utilities",
    "nas.data",
    "nas.export",
    "nas.latency",
    "nas.objectives",
    "nas.training",
    "nas.search",
    "nas.report",
    "nas.runs",
    "nas.api",
    "nas.cli",
)
"""From the ground up: each may import itself and what stands before it."""

WITHOUT_A_SEARCH = (
    "nas.cli",
    "nas.runs.retraining",
    "nas.search.evaluation",
    "nas.search.workers",
    "nas.training.supernet",
)
"""What runs on a machine that has just torch and timm."""

ON_A_CLUSTER = (
    *("nas.search.ray_workers", "nas.search.ray_tryout", "nas.training.ray_training"),
    "nas.runs.ray_retraining",
)
"""What Ray's processes import on the machines of a cluster."""


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files(*tops: str) -> list[Path]:
    return [file for top in tops for file in sorted((ROOT / top).rglob("*.py"))]


OURS = files("search_space", "supernet", "nas")


def imports(file: Path) -> Iterator[str]:
    """Everything that a file imports anywhere, for types alone or inside a function too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room_of(module: str) -> str | None:
    rooms = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return rooms[0] if rooms else None


def test_every_module_stands_in_a_room() -> None:
    outside = {module_of(file) for file in OURS if room_of(module_of(file)) is None}
    assert outside == {"nas", "nas.__main__"}


@pytest.mark.parametrize("file", OURS, ids=module_of)
def test_a_room_imports_only_what_stands_before_it(file: Path) -> None:
    room = room_of(module_of(file))
    if room is None:
        return
    later = ROOMS[ROOMS.index(room) + 1 :]
    assert not [name for name in imports(file) if room_of(name) in later]


@pytest.mark.parametrize(
    ("room", "packages"),
    [
        ("search_space", {"pydantic", "pydantic_core"}),
        (
            "supernet",
            {"fvcore", "pydantic", "safetensors", "search_space", "timm", "torch", "torchvision"},
        ),
    ],
)
def test_the_lower_rooms_need_little(room: str, packages: set[str]) -> None:
    needed = {name.partition(".")[0] for file in files(room) for name in imports(file)}
    assert needed <= sys.stdlib_module_names | {room} | packages


def import_without(absent: tuple[str, ...], modules: tuple[str, ...]) -> None:
    """Import modules in a process in which packages are missing; loading torch takes long."""
    program = f"import sys\nsys.modules |= dict.fromkeys({absent})\nimport {', '.join(modules)}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.slow
def test_without_ray_optuna_plotly_and_pandas_a_machine_can_train_and_evaluate() -> None:
    import_without(("ray", "optuna", "plotly", "pandas"), WITHOUT_A_SEARCH)


@pytest.mark.slow
def test_a_machine_of_a_cluster_needs_only_what_the_page_on_clusters_names() -> None:
    absent = "fvcore", "onnx", "onnxruntime", "onnxscript", "optuna", "pandas", "plotly", "rich"
    import_without((*absent, "sklearn"), ON_A_CLUSTER)


def test_the_command_line_shows_its_help_without_loading_torch() -> None:
    program = (
        "import sys; from nas.cli import _parser; _parser(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
