import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from small_runs import ROOT

import nas
from nas import api
from nas.cli import _parser
from nas.runs.folder import RunFolder
from search_space import PRESETS

SMALL: dict[str, Any] = {
    "space": PRESETS["nano"],
    "budget": "200MFLOPs",
    "proxy_size": 32,
    "batch_size": 8,
    "search_images": 40,
    "seed": 2,
    "steps": 4,
    "trials": 6,
    "short_list": 0,
    "workers": 0,
    "progress": False,
}
"""The run of the fixture `small_run`, from Python."""


def test_importing_nas_loads_nothing_heavy() -> None:
    heavy = ("torch", "ray", "optuna", "pandas", "plotly", "timm")
    program = f"import sys, nas; nas.search, nas.open_run; print({heavy!r} & sys.modules.keys())"
    program = program.replace(repr(heavy), f"set({heavy!r})")
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.strip() == "set()"


def test_every_public_name_is_there_and_an_unknown_one_is_not() -> None:
    for name in nas.__all__:
        assert getattr(nas, name) is not None
        assert name in dir(nas)
    with pytest.raises(AttributeError, match="nothing"):
        nas.nothing  # noqa: B018


def test_rooms_that_are_functions_stay_so_whatever_is_imported() -> None:
    import nas.search.driver
    from nas.search.front import pareto_front

    assert callable(nas.search)
    assert callable(pareto_front)
    assert inspect.isclass(nas.search.driver.Search)
    assert inspect.signature(nas.search) == inspect.signature(api.search)
    assert inspect.signature(nas.export) == inspect.signature(api.export)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"workers": 10**8}, "`workers` 100000000 is not between 0 and 1024"),
        ({"loader_workers": -1}, "`loader_workers` -1 is not between 0 and 1024"),
        ({"steps": 10**18}, "`steps` .* equal to 1000000000 "),
        ({"trials": 10**12}, "`trials` .* equal to 1000000 "),
        ({"threads": 10**9}, "`threads` .* equal to 1024 "),
        ({"latency": "9ms", "latency_batch": 10**9}, "`batch_size` .* equal to 65536 "),
    ],
)
def test_numbers_that_cannot_work_are_refused_with_the_bound(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(nas.InputError, match=told):
        nas.search(**SMALL | wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def keywords(function: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a function that have a name."""
    parameters = inspect.signature(function).parameters
    return {n: p for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize(
    ("function", "command", "elsewhere"),
    [
        (api.search, "search", {"progress"}),
        (api.retrain, "retrain", {"progress"}),
        (api.profile, "profile", {"progress"}),
        (api.export, "export", set()),
    ],
)
def test_keyword_arguments_are_named_as_the_flags_are(
    function: Any, command: str, elsewhere: set[str]
) -> None:
    positional = {"search": [], "profile": []}.get(command, ["somewhere"])
    required = ["--budget", "1G"] if command == "search" else []
    options = vars(_parser().parse_args([command, *positional, *required]))
    del options["action"]
    assert keywords(function).keys() - elsewhere == options.keys()


def test_defaults_are_those_of_the_command_line() -> None:
    options = vars(_parser().parse_args(["search", "--budget", "1G"]))
    for name, parameter in keywords(api.search).items():
        if name not in ("budget", "progress"):
            default = parameter.default
            assert options[name] == (list(default) if default == () else default), name


@pytest.mark.usefixtures("undrawn")
def test_a_search_from_python_is_that_of_the_command_line_and_gives_the_same_results(
    small_run: Path, tmp_path: Path
) -> None:
    run = nas.search(**SMALL, out=tmp_path / "run")
    theirs = nas.open_run(small_run)
    assert run.config == theirs.config
    weights = load_file(RunFolder(run.path).checkpoint)
    for name, tensor in load_file(RunFolder(small_run).checkpoint).items():
        assert tensor.equal(weights[name]), name
    pd.testing.assert_frame_equal(
        run.trials.drop(columns="seconds"), theirs.trials.drop(columns="seconds")
    )
    log = (run.path / "log.txt").read_text()
    assert "nas.search(budget='200MFLOPs', space=<SearchSpace nano>, proxy_size=32" in log


def test_a_run_gives_its_tables_architectures_networks_and_weights(small_run: Path) -> None:
    run = nas.open_run(small_run)
    front = run.front
    written = pd.read_csv(small_run / "pareto.csv")
    assert list(front.index) == list(range(1, len(written) + 1))
    assert set(front["hash"]) == set(written["hash"])
    assert front["accuracy"].is_monotonic_decreasing
    assert run.best["hash"] == front.iloc[0]["hash"]
    assert set(front["hash"]) <= set(run.trials["hash"])
    store = run.supernet()
    for rank in front.index:
        architecture = run.architecture(rank)
        assert architecture.hash == front.loc[rank, "hash"]
        inherited = store.extract(architecture).state_dict()
        for name, tensor in run.network(rank).state_dict().items():
            assert torch.equal(tensor, inherited[name])
    assert run.figure().data
    shown = run._repr_html_()
    assert run.best["hash"] in shown
    assert str(small_run) in shown


def test_what_a_run_has_not_is_refused_in_a_line(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(nas.InputError, match=r"^`rank` 99: .* has exported 1 to \d+$"):
        nas.open_run(small_run).network(99)
    with pytest.raises(nas.InputError, match="no run here"):
        nas.open_run(tmp_path)


def test_a_run_that_has_not_finished_says_so(small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((small_run / "config.json").read_bytes())
    run = nas.open_run(tmp_path)
    for ask in (lambda: run.trials, lambda: run.front, lambda: run.best, run.figure):
        with pytest.raises(nas.InputError, match="has not finished"):
            ask()
    with pytest.raises(nas.InputError, match="not trained yet"):
        run.supernet()
    with pytest.raises(nas.InputError, match="has exported none"):
        run.network()
    assert "has not finished" in run._repr_html_()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "much"}, "^`budget` 'much'"),
        ({"steps": 0}, "^`steps` "),
        ({"batch_size": 0}, "^`batch_size` 0 is below 1"),
        ({"proxy_size": 0}, "^`proxy_size` 0 is below 32"),
        ({"trials": 0}, "^`trials` "),
        ({"lr": 3.0}, "^`lr` "),
        ({"sampler": "cma"}, "^`sampler` 'cma' is none of surrogate, nsga2, tpe, random"),
        ({"space": "huge"}, "^`space` 'huge'"),
        ({"device": "tpu"}, "^`device` 'tpu'"),
        ({"epochs": 3}, "^`steps` and `epochs`"),
        ({"ray_address": "auto"}, "^`ray_address` with `workers` 0 and one training process"),
        ({"train_workers": 0}, "^`train_workers` 0 is less than 1$"),
        ({"train_workers": -8}, "^`train_workers` -8 is less than 1$"),
        ({"train_workers": 3}, "^`train_workers` 3: a batch of 8 images does not divide by it$"),
        ({"latency": {"phone": "3ms"}}, "^`latency` phone=.*needs a `latency_table`"),
    ],
)
def test_a_wrong_argument_is_named_and_leaves_no_folder(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(nas.InputError, match=message):
        nas.search(**SMALL | changes, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Shapes:
    """Forty random images of two classes."""

    def __init__(self, seed: int = 0) -> None:
        self.pixels = np.random.default_rng(seed).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.pixels[index], index % 2


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_run_on_own_datasets_resumes_and_is_retrained_with_the_same_data(tmp_path: Path) -> None:
    shapes = nas.OwnDataset(name="shapes", class_names=("a", "b"), train=Shapes())
    size = {"steps": 1, "trials": 2, "loader_workers": 0}
    own = {**SMALL, **size, "data": shapes, "out": tmp_path / "run"}
    first = nas.search(**own)
    trials = first.trials
    pd.testing.assert_frame_equal(nas.search(**own).trials, trials)

    few = {"steps": 2, "loader_workers": 0, "progress": False}
    (result,) = nas.retrain(first, data=shapes, **few)
    assert result.hash == first.best["hash"]
    assert result.test_images == 6

    other = nas.OwnDataset(name="shapes", class_names=("a", "c"), train=Shapes())
    with pytest.raises(nas.InputError, match="another configuration"):
        nas.search(**own | {"data": other})
    with pytest.raises(nas.InputError, match=r"`data`.*shapes"):
        nas.retrain(first, data=other, **few)
    with pytest.raises(nas.InputError, match=r"`data`.*shapes"):
        nas.retrain(first, **few)
