import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import NANO, ROOT, SMALL, Fork, Outcome, command, fake_table, small_config

import nas.cli.designs
import nas.export.onnx
import nas.report.verification
import nas.runs.start
from nas.cli import _parser, main
from nas.latency.profile import ProfilingEffort, profile
from nas.latency.table import LatencyTable
from nas.runs.config import RunConfig
from nas.runs.configure import Configured, configure
from nas.runs.folder import RunFolder
from nas.runs.job import Execution
from nas.runs.latency_tables import LatencyMethods
from nas.runs.start import EXECUTION, WRITTEN
from nas.training.strategies import STRATEGIES
from nas.utilities.devices import usable_cpus
from nas.utilities.interrupt import Interrupted
from search_space import (
    DESIGNS,
    PRESETS,
    Architecture,
    Cost,
    SearchSpace,
    cost_table,
    total_cost,
)
from search_space.cost import CostRow
from supernet import ExportedNetwork, Network, save_exported

pytestmark = pytest.mark.usefixtures("undrawn", "few_test_images", "short_measurements")

# --- describe, sample, designs -------------------------------------------------------------------


@pytest.fixture
def architecture_file(tmp_path: Path) -> Path:
    file = tmp_path / "architecture.json"
    file.write_text(NANO.scaled(1.0).to_json())
    return file


def printed(*arguments: str | Path) -> Any:
    outcome = command(*arguments)
    assert (outcome.status, outcome.err) == (0, "")
    return json.loads(outcome.out)


def test_describe_prints_one_object_of_costs(architecture_file: Path) -> None:
    described = printed("describe", architecture_file, "--json")
    architecture = NANO.scaled(1.0)
    cost = total_cost(architecture)
    assert described["hash"] == architecture.hash
    assert (described["params"], described["macs"]) == (cost.params, cost.macs)
    assert sum(part["macs"] for part in described["parts"]) == cost.macs
    assert sum(part["params"] for part in described["parts"]) == cost.params
    assert described["summary"] == architecture.summary


def test_describe_counts_at_the_size_and_classes_that_are_asked_for(
    architecture_file: Path,
) -> None:
    sizes = ("--image-size", "96", "--num-classes", "7")
    described = printed("describe", architecture_file, "--json", *sizes)
    cost = total_cost(NANO.scaled(1.0), image_size=96, num_classes=7)
    assert (described["params"], described["macs"]) == (cost.params, cost.macs)
    assert (described["image_size"], described["num_classes"]) == (96, 7)


@pytest.mark.slow
def test_describe_takes_the_folder_of_an_exported_network(small_run: Path) -> None:
    described = printed("describe", small_run / "best", "--json")
    architecture = Architecture.load(small_run / "best")
    assert described["hash"] == architecture.hash
    assert described["num_classes"] == 10  # of its weights
    assert described["params"] == total_cost(architecture, num_classes=10).params
    asked = printed("describe", small_run / "best", "--json", "--num-classes", "7")
    assert asked["num_classes"] == 7


def test_describe_draws_the_architecture_where_it_is_asked_to(
    architecture_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hash = Architecture.load(architecture_file).hash
    for flags, file in ((["--picture"], f"{hash}.svg"), (["--picture", "own.svg"], "own.svg")):
        outcome = command("describe", architecture_file, *flags, "--no-latency")
        assert outcome.out.endswith(f"picture: {file}\n")
        assert f"architecture {hash}" in (tmp_path / file).read_text()
    timed = printed("describe", architecture_file, "--picture", "timed.svg", "--json")
    assert timed["hash"] == hash
    assert "time on cpu" in (tmp_path / "timed.svg").read_text()


@pytest.mark.parametrize("name", ["own.png", "none/own.svg"])
def test_a_picture_that_cannot_be_written_is_refused_first(
    architecture_file: Path, name: str
) -> None:
    outcome = command("describe", architecture_file, "--picture", architecture_file.parent / name)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("error: --picture ") and outcome.err.count("\n") == 1


def test_describe_names_weights_that_are_damaged(architecture_file: Path) -> None:
    (architecture_file.parent / "weights.safetensors").write_bytes(b"damaged")
    outcome = command("describe", architecture_file)
    assert outcome.status == 2
    assert "weights.safetensors: no weights of an exported network" in outcome.err


def test_describe_shows_people_each_part_and_the_sum(architecture_file: Path) -> None:
    out = command("describe", architecture_file).out
    cost = total_cost(NANO.scaled(1.0))
    for part in (f"{cost.macs:,}", f"{cost.params:,}", "stage 1", "stage 3", "stem", "224 px"):
        assert part in out


def test_sample_prints_different_architectures_of_the_space(tmp_path: Path) -> None:
    sampled = printed("sample", "--space", "tiny", "-n", "5", "--json")
    architectures = [Architecture.model_validate(data) for data in sampled]
    assert len({architecture.hash for architecture in architectures}) == 5
    assert all(architecture in PRESETS["tiny"] for architecture in architectures)
    assert printed("sample", "--space", "tiny", "-n", "5", "--json") == sampled
    assert printed("sample", "--space", "tiny", "-n", "5", "--json", "--seed", "1") != sampled


def test_sample_writes_files_that_describe_reads(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "folder"
    sampled = printed("sample", "--space", "nano", "-n", "3", "--out", out, "--json")
    files = sorted(out.iterdir())
    assert len(files) == 3
    assert {f.name for f in files} == {
        f"{Architecture.model_validate(data).hash}.json" for data in sampled
    }
    for file in files:
        assert printed("describe", file, "--json")["hash"] == file.stem


@pytest.mark.slow
def test_sample_keeps_to_a_budget(tmp_path: Path) -> None:
    budget = ("--budget", "100MFLOPs", "--image-size", "192")
    sampled = printed("sample", "--space", "nano", "-n", "5", *budget, "--json")
    for data in sampled:
        cost = total_cost(Architecture.model_validate(data), image_size=192)
        assert cost.macs <= 100_000_000


def test_sample_keeps_to_a_memory_and_parameters() -> None:
    limits = ("--memory", "5MB", "--params", "6M")
    sampled = printed("sample", "--space", "base", "-n", "5", *limits, "--json")
    for data in sampled:
        cost = total_cost(Architecture.model_validate(data))
        assert 4 * cost.peak <= 5_000_000
        assert cost.params <= 6_000_000
    assert "memory" in command("sample", "--space", "nano", "--memory", "5MB").out
    assert "memory" not in command("sample", "--space", "nano").out


def test_sample_can_list_all_of_a_small_budget() -> None:
    costs = sorted(total_cost(architecture).macs for architecture in NANO.enumerate())
    flags = ("--space", "nano", "--budget", str(costs[2]))
    assert len(printed("sample", *flags, "-n", "3", "--json")) == 3
    assert "found only 3" in command("sample", *flags, "-n", "4").err


def test_sample_shows_people_one_line_for_each() -> None:
    out = command("sample", "--space", "nano", "-n", "4").out
    assert len(out.splitlines()) == 4


def test_designs_prints_a_list_of_costs_and_figures() -> None:
    designs = printed("designs", "--json")
    assert [row["name"] for row in designs] == [design.name for design in DESIGNS]
    first = designs[0]
    assert first["timm_name"] == "shunted_t"
    assert first["params"] == 11_553_576  # SEEDS.md
    assert round(first["macs"] / 1e9, 4) == 2.1467
    out = command("designs").out
    assert max(map(len, out.splitlines())) <= 80
    for design in DESIGNS:
        assert design.timm_name in out
        assert f"{total_cost(design.architecture).params:,}" in out


def test_designs_are_built_counted_and_timed_where_they_are_to_be_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (design,) = (design for design in DESIGNS if design.name == "DeiT-Ti")
    monkeypatch.setattr(nas.cli.designs, "DESIGNS", [design])
    monkeypatch.setitem(nas.cli.designs.SIZES, "image_size", 64)
    (row,) = printed("designs", "--verify", "--json")
    cost = total_cost(design.architecture, image_size=64)
    assert row["counted"]["fvcore_macs"] == row["counted"]["torch"]["macs"] == cost.macs
    assert row["latency_ms"] > 0
    outcome = command("designs", "--verify")
    assert outcome.status == 0
    assert "1 of 1 agree to the unit" in outcome.out
    refused = command("designs", "--device", "cpu")
    assert refused.err == "error: --device is for --verify: nothing is timed without it\n"


def test_describe_counts_each_part_of_the_built_network_where_it_is_to_be_verified(
    architecture_file: Path,
) -> None:
    architecture_file.write_text(NANO.scaled(0.0).to_json())
    flags = ("--verify", "--image-size", "64", "--num-classes", "10")
    described = printed("describe", architecture_file, *flags, "--json")
    for part in (*described["parts"], described):
        counted = part["counted"]
        assert counted["fvcore_macs"] == counted["torch"]["macs"] == part["macs"]
        assert counted["torch"]["params"] == part["params"]
    out = command("describe", architecture_file, *flags, "--no-latency").out
    rows = len(described["parts"]) + 1
    assert f"{rows} of {rows} agree to the unit" in out


def test_a_cost_that_is_not_what_was_counted_is_an_error_with_status_one(
    architecture_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: Any, **sizes: Any) -> list[CostRow]:
        stem, *rows = cost_table(*arguments, **sizes)
        return [replace(stem, cost=stem.cost + Cost(macs=1)), *rows]

    architecture_file.write_text(NANO.scaled(0.0).to_json())
    monkeypatch.setattr(nas.report.verification, "cost_table", wrong)
    flags = ("--verify", "--image-size", "64", "--no-latency")
    outcome = command("describe", architecture_file, *flags)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: costs differ from what was counted: stem: macs ")
    assert outcome.err.endswith(" by torch (and 1 more)\n")
    assert "stem ≠" in outcome.out


def test_help_says_what_a_flop_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command("search", "--help")
    assert raised.value.code == 0


@pytest.mark.slow
def test_run_search_is_the_search_and_its_status_is_the_process_s(tmp_path: Path) -> None:
    done = Fork(ROOT / "run_search.py", "--help").finish()
    assert done.status == 0
    assert "nas search" in done.out
    assert "multiply-add" in " ".join(done.out.split())
    done = Fork(ROOT / "run_search.py", "--budget", "much", "--out", tmp_path / "run").finish()
    assert done.status == 2
    assert done.err.startswith("error: --budget 'much'")
    assert len(done.err.splitlines()) == 1
    done = Fork("-m", "nas", "describe", tmp_path / "none.json").finish()
    assert (done.status, len(done.err.splitlines())) == (2, 1)


# --- bad input -----------------------------------------------------------------------------------


def picture(path: Path, shade: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32, 3), shade, np.uint8)).save(path)


def empty_folder(here: Path) -> None:
    (here / "photos").mkdir()


def one_class(here: Path) -> None:
    for number in range(5):
        picture(here / "photos" / "cat" / f"{number}.png")


def broken_image(here: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(5):
            picture(here / "photos" / label / f"{number}.png")
    file = here / "photos" / "dog" / "3.png"
    file.write_bytes(file.read_bytes()[:60])


def folder_of_another_configuration(here: Path) -> None:
    with RunFolder(here / "run").claimed_for(small_config(steps=99)):
        pass


def folder_of_something_else(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "thesis.tex").touch()


def regular_file(here: Path) -> None:
    (here / "file").write_text("no folder")


def space_file(here: Path, **changes: Any) -> None:
    data = NANO.model_dump(mode="json")
    data["stages"][1] |= changes
    (here / "space.json").write_text(json.dumps(data))


def space_without_json(here: Path) -> None:
    (here / "space.json").write_text("{")


def space_with_a_wrong_width(here: Path) -> None:
    space_file(here, width=[30])


def space_with_half_channels(here: Path) -> None:
    space_file(here, ratio=[2.3])


def space_with_huge_stages(here: Path) -> None:
    space_file(here, width=[65_536], depth=[1_000], ratio=[64])


def space_with_countless_choices(here: Path) -> None:
    space_file(here, depth=list(range(1, 100)), ratio=list(range(1, 60)), sharing=[1, 2])


def space_of_one(here: Path) -> None:
    data = NANO.model_dump(mode="json")
    for stage in data["stages"]:
        stage |= {gene: choices[:1] for gene, choices in stage.items() if isinstance(choices, list)}
    (here / "space.json").write_text(json.dumps(data))


def space_without_end(here: Path) -> None:
    (here / "space.json").symlink_to("/dev/zero")


def space_with_an_unknown_field(here: Path) -> None:
    space_file(here, widths=[32])


def architecture(here: Path, change: Callable[[dict[str, Any]], object] = lambda data: 0) -> None:
    data = NANO.scaled(1.0).model_dump(mode="json")
    change(data)
    (here / "a.json").write_text(json.dumps(data))


def architecture_without_json(here: Path) -> None:
    (here / "a.json").write_text('{"stem": ')


def architecture_in_another_encoding(here: Path) -> None:
    (here / "a.json").write_bytes(b"\xff\xfe{\x00}\x00")


def architecture_with_a_word_for_a_number(here: Path) -> None:
    architecture(here, lambda data: data["stages"][1].update(depth="deep"))


def architecture_with_huge_stages(here: Path) -> None:
    architecture(here, lambda data: data["stages"][1].update(width=65_536, depth=1_000))


def architecture_of_huge_depth(here: Path) -> None:
    architecture(here, lambda data: data["stages"][1].update(depth=10**9))


def architecture_nested_deeply(here: Path) -> None:
    (here / "a.json").write_text('{"stem": ' + 100_000 * "[")


def architecture_with_too_many_heads(here: Path) -> None:
    architecture(here, lambda data: data["stages"][0]["mixer"].update(heads=5))


def architecture_with_an_unknown_field(here: Path) -> None:
    architecture(here, lambda data: data["stages"][2].update(dept=3))


def architecture_without_a_field(here: Path) -> None:
    architecture(here, lambda data: data["stages"][2].pop("width"))


def architecture_of_another_version(here: Path) -> None:
    architecture(here, lambda data: data.update(schema_version=99))


def architecture_with_an_unknown_mixer(here: Path) -> None:
    architecture(here, lambda data: data["stages"][0].update(mixer={"kind": "convolution"}))


def table(here: Path, device: str = "phone", **changes: Any) -> None:
    (here / "table.json").write_text(fake_table(device, **changes).to_json())


def table_of_another_device(here: Path) -> None:
    table(here, "tablet")


def table_of_this_cpu(here: Path) -> None:
    table(here, "cpu")


def table_of_another_dtype(here: Path) -> None:
    table(here, "cpu", dtype="float16")


def table_of_another_batch(here: Path) -> None:
    table(here, batch_size=8)


def table_of_another_image_size(here: Path) -> None:
    table(here, image_size=64)


def table_of_another_runtime(here: Path) -> None:
    table(here, "cpu", runtime="compile")


def table_of_another_chip(here: Path) -> None:
    table(here, "cpu", chip="Difference Engine")


def table_of_another_space(here: Path) -> None:
    table(here, space=PRESETS["tiny"])


def table_with(here: Path, segments: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(fake_table().to_json())
    segments(data["segments"])
    (here / "table.json").write_text(json.dumps(data))


def table_without_a_segment(here: Path) -> None:
    table_with(here, lambda times: times.pop(HEAD))


def table_with_nan(here: Path) -> None:
    table_with(here, lambda times: times.update({HEAD: float("nan")}))


def table_with_a_negative_time(here: Path) -> None:
    table_with(here, lambda times: times.update({HEAD: -1.0}))


def table_without_json(here: Path) -> None:
    (here / "table.json").write_text("milliseconds,label")


def finished_search(here: Path) -> None:
    with RunFolder(here / "run").claimed_for(small_config()):
        pass


def exported_network(here: Path) -> None:
    finished_search(here)
    about = ExportedNetwork(
        num_classes=10,
        image_size=64,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        class_names=tuple("0123456789"),
    )
    (here / "run" / "front" / "1").mkdir(parents=True)
    network = Network(NANO.scaled(0.0), num_classes=10)
    save_exported(here / "run" / "front" / "1", network, about)


def nothing(here: Path) -> None:
    pass


CPUS = usable_cpus()
SEARCH = ("search", *SMALL, "--steps", "2", "--trials", "2", "--out", "run", "--device", "cpu")
HERE = (*SEARCH, "--latency", "40ms", "--device", "cpu", "--latency-table", "table.json")
PHONE = (*SEARCH, "--latency", "phone=40ms", "--latency-table", "table.json")
PROFILE = ("profile", "--space", "nano", "--device", "cpu")

HEAD = next(label for label in fake_table().segments if label.startswith("head"))
"""The label of a segment of nano."""

UNNAMED = SEARCH[: SEARCH.index("--out")]

BAD_INPUT: list[tuple[Callable[[Path], None], tuple[str, ...], tuple[str, ...]]] = [
    # limits
    (nothing, (*SEARCH, "--budget", "1MFLOPs"), ("--budget", "97069248", "256")),
    (nothing, (*SEARCH, "--budget", "much"), ("--budget", "'much'", "2GFLOPs")),
    (nothing, (*SEARCH, "--budget=-2GFLOPs"), ("--budget", "'-2GFLOPs'")),
    (nothing, (*SEARCH, "--budget", "-2GFLOPs"), ("--budget", "'-2GFLOPs'", "positive")),
    (nothing, (*SEARCH, "--budget", "0"), ("--budget", "'0'")),
    (nothing, (*SEARCH, "--budget", "nan"), ("--budget", "'nan'")),
    (nothing, (*SEARCH, "--budget", "infFLOPs"), ("--budget", "'infFLOPs'")),
    (nothing, (*SEARCH, "--budget", "2GHz"), ("--budget", "'2GHz'")),
    (nothing, (*SEARCH, "--budget", ""), ("--budget", "''")),
    (nothing, (*SEARCH, "--budget", "1e300TFLOPs"), ("--budget",)),
    (nothing, (*SEARCH[:3], "--steps", "2", "--out", "run"), ("--budget",)),
    (nothing, (*SEARCH, "--params", "1k"), ("--params", "168538")),
    (nothing, (*SEARCH, "--params", "10MB"), ("--params", "'10MB'")),
    (nothing, (*SEARCH, "--params", ""), ("--params", "''")),
    (nothing, (*SEARCH, "--memory", "1kB"), ("--memory 1 kB", "1.61 MB", "3.21 MB", "1605632")),
    (nothing, (*SEARCH, "--memory", "64MFLOPs"), ("--memory", "'64MFLOPs'", "64MB")),
    (nothing, (*SEARCH, "--memory", "-64MB"), ("--memory", "'-64MB'", "positive")),
    (nothing, (*SEARCH, "--memory", "0MB"), ("--memory", "'0MB'", "positive")),
    (nothing, (*SEARCH, "--memory", ""), ("--memory", "''")),
    (nothing, (*SEARCH, "--latency", "15"), ("--latency", "'15'", "15ms")),
    (nothing, (*SEARCH, "--latency", ""), ("--latency", "''")),
    (nothing, (*SEARCH, "--latency", "cpu=15"), ("--latency", "'15'", "15ms")),
    (nothing, (*SEARCH, "--latency", "cpu="), ("--latency", "''")),
    (nothing, (*SEARCH, "--latency", "=15ms"), ("--latency", "'=15ms'", "no name of a device")),
    (nothing, (*SEARCH, "--latency", "cpu=nanms"), ("--latency", "'nanms'", "positive")),
    (nothing, (*SEARCH, "--latency", "cpu=-2ms"), ("--latency", "'-2ms'", "positive")),
    (nothing, (*SEARCH, "--latency", "15ms", "--latency", "20ms"), ("'20ms'", "each device")),
    (
        nothing,
        (*SEARCH, "--latency", "15ms", "--latency", "cpu=20ms"),
        ("--latency 'cpu=20ms'", "one limit for each device"),
    ),
    # the run's folder
    *(
        (nothing, (*UNNAMED, f"--name={name}"), (f"--name {name!r}", "letters", "--out"))
        for name in ("", ".", "..", "../run", "a/b", "/run", ".run", "-run", "a\nb", "n" * 101)
    ),
    (nothing, (*SEARCH, "--name", "birds"), ("--name and --out", "one of them")),
    # latency tables
    (nothing, PHONE, ("table.json", "cannot be read")),
    (empty_folder, (*PHONE[:-1], "photos"), ("photos", "cannot be read")),
    (table_without_json, PHONE, ("table.json", "JSON")),
    (table_with_nan, PHONE, ("table.json", f"segments.{HEAD}")),
    (table_with_a_negative_time, PHONE, ("table.json", f"segments.{HEAD}")),
    (table_without_a_segment, PHONE, ("table.json", "lacks segments", "'nano'", repr(HEAD))),
    (table_of_another_space, PHONE, ("table.json", "lacks segments", "'tiny'", "'nano'")),
    (table_of_another_device, PHONE, ("table.json", "'tablet'", "(phone has)")),
    (table, (*SEARCH, "--latency-table", "table.json"), ("table.json", "'phone'", "(none has)")),
    (nothing, (*SEARCH, "--latency", "../x=15ms"), ("--latency", "'../x'", "no name of a device")),
    (table_of_another_dtype, HERE, ("table.json", "dtype", "'float16'", "'float32'")),
    (
        table_of_this_cpu,
        (*HERE, "--latency-dtype", "bfloat16"),
        ("dtype", "'float32'", "'bfloat16'"),
    ),
    (table_of_another_batch, PHONE, ("table.json", "batch_size 8", "1")),
    (table, (*PHONE, "--latency-batch", "4"), ("table.json", "batch_size 1", "4")),
    (table_of_another_image_size, PHONE, ("table.json", "image_size 64", "224")),
    (table, (*PHONE, "--image-size", "96"), ("table.json", "image_size 224", "96")),
    (table_of_another_runtime, HERE, ("table.json", "runtime 'compile'", "'eager'")),
    (
        table_of_another_chip,
        (*SEARCH, "--latency", "40ms", "--latency-table", "table.json"),
        ("table.json", "chip 'Difference Engine'"),
    ),
    (table, (*PHONE, "--latency-table", "table.json"), ("table.json", "a second table", "'phone'")),
    (
        table,
        (*PHONE, "--latency", "tablet=40ms"),
        ("--latency tablet", "not here (cpu", "--latency-table"),
    ),
    (nothing, (*SEARCH, "--latency", "phone=40ms"), ("--latency phone", "--latency-table")),
    (nothing, (*SEARCH, "--latency", "cuda:99=4ms"), ("--latency cuda:99", "--latency-table")),
    (nothing, (*SEARCH, "--latency-batch", "0"), ("--latency-batch", "0")),
    (nothing, (*SEARCH, "--latency-dtype", "int8"), ("--latency-dtype", "int8", "bfloat16")),
    (nothing, (*SEARCH, "--runtime", "tflite"), ("--runtime", "tflite", "onnx")),
    (
        nothing,
        (*SEARCH, "--latency", "9ms", "--runtime", "onnx", "--latency-dtype", "bfloat16"),
        ("onnx", "bfloat16", "float16"),
    ),
    # profiles
    (nothing, (*PROFILE, "--out", "none/table.json"), ("--out none/table.json", "folder")),
    (regular_file, (*PROFILE, "--out", "file/table.json"), ("--out file/table.json", "folder")),
    (empty_folder, (*PROFILE, "--out", "photos"), ("--out photos", "folder")),
    (
        architecture_with_huge_stages,
        (*PROFILE, "--out", "a.json"),
        ("--out a.json", "exists and is no latency table"),
    ),
    (nothing, ("profile", "--space", "huge"), ("--space", "'huge'", "nano")),
    (nothing, ("profile", "--space", "nano", "--device", "tpu"), ("--device", "'tpu'", "cpu")),
    (nothing, (*PROFILE, "--batch", "0"), ("--batch", "0")),
    (nothing, (*PROFILE, "--dtype", "int8"), ("--dtype", "int8", "bfloat16")),
    (nothing, (*PROFILE, "--runtime", "onnx", "--dtype", "bfloat16"), ("onnx", "bfloat16")),
    # data
    (nothing, (*SEARCH, "--data", "photos"), ("photos", "digits")),
    (empty_folder, (*SEARCH, "--data", "photos"), ("photos", "no class folders")),
    (one_class, (*SEARCH, "--data", "photos"), ("photos", "cat", "at least two")),
    (broken_image, (*SEARCH, "--data", "photos"), ("dog/3.png",)),
    (regular_file, (*SEARCH, "--data", "file"), ("file", "not a folder")),
    # names
    (nothing, (*SEARCH, "--sampler", "bohb"), ("--sampler", "bohb", "nsga2")),
    (nothing, (*SEARCH, "--strategy", "fairnas"), ("--strategy", "fairnas", "single-path")),
    (nothing, (*SEARCH, "--space", "huge"), ("--space", "'huge'", "nano", "base")),
    (nothing, (*SEARCH, "--space", "none.json"), ("none.json",)),
    (space_without_json, (*SEARCH, "--space", "space.json"), ("space.json", "JSON")),
    (space_with_a_wrong_width, (*SEARCH, "--space", "space.json"), ("stages[1].width 30",)),
    (space_with_half_channels, (*SEARCH, "--space", "space.json"), ("space.json", "ratio 2.3")),
    (
        space_with_countless_choices,
        (*SEARCH, "--space", "space.json"),
        ("stages[1]", "combinations", "50,000"),
    ),
    (space_without_end, (*SEARCH, "--space", "space.json"), ("space.json", "larger than 16 MiB")),
    (space_with_an_unknown_field, (*SEARCH, "--space", "space.json"), ("stages[1].widths",)),
    (nothing, (*SEARCH, "--device", "tpu"), ("--device", "'tpu'", "cpu")),
    (nothing, (*SEARCH, "--device", ""), ("--device", "''")),
    (nothing, (*SEARCH, "--no-such-flag"), ("--no-such-flag",)),
    (nothing, ("serach",), ("serach", "search")),
    (nothing, (), ("COMMAND",)),
    # numbers
    (nothing, (*SEARCH, "--epochs", "3"), ("--steps", "--epochs")),
    (nothing, (*SEARCH, "--trials", "0"), ("--trials", "0")),
    (nothing, (*SEARCH, "--trials", "few"), ("--trials", "'few'")),
    (nothing, (*SEARCH, "--batch-size", "-8"), ("--batch-size",)),
    (nothing, (*SEARCH, "--lr", "nan"), ("--lr",)),
    (nothing, (*SEARCH, "--proxy-size", "16"), ("--proxy-size", "32")),
    (nothing, (*SEARCH, "--seed", str(10**30)), ("--seed",)),
    (nothing, (*SEARCH, "--trials", str(10**12)), ("--trials", str(10**12), "1 and 1000000")),
    (nothing, (*SEARCH, "--steps", str(10**18)), ("--steps", "1 and 1000000000")),
    (nothing, (*SEARCH, "--image-size", str(10**9)), ("--image-size", "32 and 8192")),
    (nothing, (*SEARCH, "--workers", str(10**8)), ("--workers", "0 and 1024")),
    (nothing, (*SEARCH, "--threads", str(10**9)), ("--threads", "1 and 1024")),
    (nothing, (*SEARCH, "--loader-workers", str(10**6)), ("--loader-workers", "0 and 1024")),
    (nothing, (*SEARCH, "--seed", "1" + 5000 * "0"), ("--seed", "10000", "...")),
    (
        nothing,
        (*SEARCH, "--proxy-size", "8192", "--batch-size", "65536"),
        ("65536 images of 8192 px", "GB of memory"),
    ),
    (
        nothing,
        (*SEARCH, "--latency", "9ms", "--image-size", "8192", "--latency-batch", "65536"),
        ("8192 px in batches of 65536", "GB of memory"),
    ),
    (
        space_with_huge_stages,
        (*SEARCH, "--space", "space.json", "--budget", "1e18"),
        ("--space nano", "GB of memory"),
    ),
    (nothing, (*SEARCH, "--data", "\udcff"), ("\\udcff", "UTF-8")),
    (nothing, (*SEARCH, "--ray-address", "auto"), ("--ray-address", "--workers 0", "one training")),
    (nothing, (*SEARCH, "--ray-wait", "soon"), ("--ray-wait", "'soon'", "5min")),
    (nothing, (*SEARCH, "--train-workers", "0"), ("--train-workers", "0")),
    (nothing, (*SEARCH, "--train-workers", "3"), ("--train-workers 3", "batch of 8 images")),
    (
        nothing,
        (*SEARCH, "--batch-size", str(2 * CPUS), "--train-workers", str(2 * CPUS)),
        (f"--train-workers {2 * CPUS}", f"this machine has {CPUS} CPUs"),
    ),
    # folders
    (folder_of_another_configuration, SEARCH, ("run", "steps", "99", "--out")),
    (folder_of_something_else, SEARCH, ("run", "thesis.tex", "--out")),
    (regular_file, (*SEARCH, "--out", "file/run"), ("file/run", "cannot be written")),
    (regular_file, (*SEARCH, "--out", "file"), ("file", "cannot be written")),
    (nothing, ("retrain", "run"), ("run", "no run here")),
    (folder_of_something_else, ("retrain", "run"), ("run", "no run here")),
    (nothing, ("plot", "run"), ("run", "no run here")),
    (finished_search, ("retrain", "run"), ("run", "nothing exported yet")),
    (finished_search, ("plot", "run"), ("run", "not finished")),
    (finished_search, ("retrain", "run", "--steps", "1", "--epochs", "1"), ("--epochs",)),
    (
        exported_network,
        ("retrain", "run", "--name", "config.json"),
        ("--name 'config.json'", "no name for a new folder"),
    ),
    (
        exported_network,
        ("export", "run/front/1", "--out", "run/config.json"),
        ("--out run/config.json", "must end in .onnx"),
    ),
    (
        exported_network,
        ("profile", "--space", "nano", "--device", "cpu", "--out", "run/config.json"),
        ("--out run/config.json", "exists and is no latency table"),
    ),
    (finished_search, ("retrain", "run", "--drop-path", "1.5"), ("--drop-path", "1.5")),
    (finished_search, ("retrain", "run", "--ema", "1"), ("--ema", "less than 1", "1.0")),
    (finished_search, ("retrain", "run", "--layer-decay", "0"), ("--layer-decay", "0.0")),
    (finished_search, ("retrain", "run", "--validate", "0.6"), ("--validate 0.6", "0 to 0.5")),
    (finished_search, ("retrain", "run", "--device", "tpu"), ("--device", "'tpu'")),
    (finished_search, ("retrain", "run", "--from", "scratsh"), ("--from", "scratsh", "supernet")),
    (nothing, ("sample", "--space", "huge"), ("--space", "'huge'")),
    (nothing, ("sample", "--space", "nano", "--budget", "1"), ("--budget", "nearest legal")),
    (nothing, ("sample", "--space", "nano", "--budget", ""), ("--budget", "''")),
    (nothing, ("sample", "--space", "nano", "--memory", "1MB"), ("--memory", "nearest legal")),
    (nothing, ("sample", "--space", "nano", "--params", "many"), ("--params", "'many'")),
    (space_of_one, ("sample", "--space", "space.json", "-n", "2"), ("-n 2", "found only 1")),
    (regular_file, ("sample", "--space", "nano", "--out", "file/a"), ("--out", "file/a")),
    # architectures
    (nothing, ("describe", "a.json"), ("a.json", "cannot be read")),
    (empty_folder, ("describe", "photos"), ("photos", "cannot be read")),
    (architecture_without_json, ("describe", "a.json"), ("a.json", "JSON")),
    (architecture_in_another_encoding, ("describe", "a.json"), ("a.json", "JSON")),
    (architecture_with_a_word_for_a_number, ("describe", "a.json"), ("stages[1].depth", "deep")),
    (architecture_with_huge_stages, ("describe", "a.json"), ("at 224 px", "GB of memory")),
    (architecture_of_huge_depth, ("describe", "a.json"), ("stages[1].depth", "equal to 1000")),
    (architecture_nested_deeply, ("describe", "a.json"), ("a.json", "recursion limit")),
    (architecture_with_too_many_heads, ("describe", "a.json"), ("stages[0]", "heads=5", "legal")),
    (architecture_with_an_unknown_field, ("describe", "a.json"), ("stages[2].dept",)),
    (architecture_without_a_field, ("describe", "a.json"), ("stages[2].width",)),
    (architecture_of_another_version, ("describe", "a.json"), ("schema_version", "99")),
    (architecture_with_an_unknown_mixer, ("describe", "a.json"), ("stages[0].mixer",)),
]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.name.startswith(".lock")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "arguments", "told"),
    BAD_INPUT,
    ids=[f"{p.__name__} {' '.join(a[-2:])}" for p, a, _ in BAD_INPUT],
)
def test_bad_input_gets_one_line_and_status_2_and_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    arguments: tuple[str, ...],
    told: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nas", *arguments])
    assert main() == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 400
    assert all(part in line for part in told), line
    assert out == ""
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("arguments", [(*SEARCH, "--latency", "15ms"), PROFILE])
def test_a_runtime_that_is_not_installed_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nas.export.onnx, "find_spec", lambda name: None)
    outcome = command(*arguments, "--runtime", "onnx")
    assert (outcome.status, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert "'onnx' is not installed" in line
    assert "pip install" in line
    assert snapshot(tmp_path) == {}


@pytest.mark.usefixtures("small_run")
def test_a_broken_configuration_of_a_run_is_named(small_run: Path, tmp_path: Path) -> None:
    config = json.loads((small_run / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"trials": "many"}))
    outcome = command("retrain", tmp_path)
    assert outcome.status == 2
    assert "config.json: trials" in outcome.err


Asked = tuple[RunConfig, RunFolder, Execution]
"""What a search was to be: its configuration, its folder, and how the work is spread."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What searches would be, which are not begun."""
    known: list[Asked] = []

    def run(config: RunConfig, folder: RunFolder, *, execution: Execution, **rest: object) -> None:
        known.append((config, folder, execution))

    monkeypatch.setattr(nas.runs.start, "run", run)
    return known


def test_how_the_work_is_spread_is_told_to_the_run_and_not_part_of_its_configuration(
    tmp_path: Path, asked: list[Asked]
) -> None:
    flags = ("--steps", "1", "--out", tmp_path / "run")
    spread = ("--train-workers", str(4 * CPUS), "--ray-address", "head:6379")
    for more in ((), spread):  # a cluster may have more CPUs than this machine
        command("search", *SMALL, "--batch-size", str(4 * CPUS), *flags, *more)
    (plain, _, alone), (config, _, together) = asked
    assert plain == config
    assert alone == Execution(workers=0)
    assert together == Execution(workers=0, train_workers=4 * CPUS, ray_address="head:6379")


# --- where things come from ----------------------------------------------------------------------


def search_in(folder: Path, *arguments: str) -> Outcome:
    return command("search", *SMALL, "--steps", "1", "--trials", "1", *arguments)


def test_a_folder_that_is_called_like_the_embedded_data_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Asked]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert search_in(tmp_path, "--out", "run").status == 0
    ((config, _, _),) = asked
    assert config.data == "digits"


@pytest.mark.slow
def test_a_folder_of_images_is_remembered_by_its_full_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for label in range(3):
        for number in range(6):
            picture(tmp_path / "photos" / str(label) / f"{number}.png", shade=40 * label + number)
    outcome = search_in(tmp_path, "--data", "photos", "--loader-workers", "0", "--out", "run")
    assert outcome.status == 0, outcome.err
    assert "no search split: 15 % of train, 3 images" in " ".join(outcome.out.split())
    assert RunFolder("run").config.data == str(tmp_path / "photos")
    monkeypatch.chdir(os.sep)
    assert command("retrain", tmp_path / "run", "--steps", "1").status == 0


def test_a_space_can_come_from_a_file(tmp_path: Path, asked: list[Asked]) -> None:
    few = NANO.model_copy(update={"name": "few", "stages": NANO.stages[:2]})
    file = tmp_path / "few.json"
    file.write_text(few.model_dump_json())
    assert SearchSpace.load(file) == few
    outcome = search_in(tmp_path, "--space", str(file), "--out", str(tmp_path / "run"))
    assert outcome.status == 0, outcome.err
    ((config, _, _),) = asked
    assert config.space == few


def test_a_run_is_named_by_what_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Asked]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert search_in(tmp_path).status == 0
    assert search_in(tmp_path).status == 0
    assert search_in(tmp_path, "--seed", "7").status == 0
    first, again, other = (folder.path for _, folder, _ in asked)
    assert first == again != other
    for path in (first, other):
        assert path.parent.resolve() == tmp_path / "results"
        assert path.name.startswith("digits-nano-0.2GFLOPs-")


def test_a_name_is_that_of_the_run_s_folder_below_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = search_in(tmp_path, "--name", "my birds")
    assert outcome.status == 0, outcome.err
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["my birds"]
    front = len(list((tmp_path / "results" / "my birds" / "front").iterdir()))
    assert f"retrain 'results/my birds' --top {min(3, front)}\n" in outcome.out


# --- latency -------------------------------------------------------------------------------------


def configured(*flags: str | Path) -> Configured:
    """The run that a search with these flags would be."""
    options = vars(_parser().parse_args(["search", *map(str, flags)]))
    elsewhere = ("action", *EXECUTION, *WRITTEN)
    return configure(**{name: v for name, v in options.items() if name not in elsewhere})


def test_limits_on_latency_are_of_the_device_of_the_run_or_of_those_that_are_named(
    tmp_path: Path,
) -> None:
    phone = fake_table("phone", batch_size=2, dtype="float16")
    (tmp_path / "phone.json").write_text(phone.to_json())
    run = configured(
        *(*SMALL, "--device", "cpu"),
        *("--latency", "0.015s", "--latency", "phone=40ms"),
        *("--latency-table", tmp_path / "phone.json"),
        *("--latency-batch", "2", "--latency-dtype", "float16"),
    )
    config = run.config
    assert config.latency_ms == {"cpu": 15.0, "phone": 40.0}
    assert config.latency_tables == {"phone": phone.digest}
    assert (config.latency_batch, config.latency_dtype, config.runtime) == (2, "float16", "eager")
    assert run.tables == {"phone": phone}


def test_without_a_limit_on_latency_none_is_configured() -> None:
    run = configured(*SMALL)
    assert (run.config.latency_ms, run.tables) == ({}, {})


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_strategy_of_training_is_the_one_that_is_named(name: str) -> None:
    assert configured(*SMALL, "--strategy", name).config.strategy == STRATEGIES[name]()


def test_another_table_is_another_configuration(tmp_path: Path) -> None:
    digests = set()
    for factor in (1.0, 2.0):
        table(tmp_path, fields={"overhead_ms": factor})
        flags = ("--latency", "phone=40ms", "--latency-table", tmp_path / "table.json")
        digests.add(configured(*SMALL, *flags).config.digest)
    assert len(digests) == 2


@pytest.mark.slow
def test_profile_writes_a_table_that_a_search_takes(tmp_path: Path) -> None:
    def quick_profile(space: object, conditions: object, effort: object, **rest: Any) -> Any:
        return profile(
            space, conditions, ProfilingEffort(sightings=1, fitted=2, held_out=1), **rest
        )

    few = NANO.model_copy(update={"name": "few", "stages": NANO.stages[:1]})
    (tmp_path / "few.json").write_text(few.model_dump_json())
    space = ("--space", tmp_path / "few.json")
    file = tmp_path / "cpu.json"
    outcome = command(
        *(*PROFILE, *space, "--image-size", "64", "--batch", "2", "--out", file),
        methods=LatencyMethods(profile=quick_profile),
    )
    assert outcome.status == 0, outcome.err
    written = LatencyTable.load(file)
    written.check_covers(few, "cpu.json")
    assert (written.conditions.image_size, written.conditions.batch_size) == (64, 2)
    text = " ".join(outcome.out.split())
    assert str(written.conditions) in text
    assert f"{len(written.segments)} segments: {file}" in text
    other = (*PROFILE, *space, "--image-size", "64", "--batch", "4", "--out", file)
    refused = command(*other, methods=LatencyMethods(profile=never))
    assert refused.status == 2
    assert f"--out {file}: is of other conditions (" in refused.err
    assert "batch 2, " in refused.err
    assert LatencyTable.load(file) == written
    flags = ("--image-size", "64", "--latency-batch", "2", "--device", "cpu")
    limit = ("--latency", "15ms", "--latency-table", file)
    assert configured(*SMALL, *space, *flags, *limit).tables == {"cpu": written}


def never(*args: object, **rest: object) -> LatencyTable:
    pytest.fail("measured")


def test_a_table_that_cannot_be_written_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "none" / "table.json"):
        methods = LatencyMethods(profile=never)
        assert command(*PROFILE, "--out", out, methods=methods).status == 2


def test_profile_names_its_file_by_space_and_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake_table("cpu")
    monkeypatch.chdir(tmp_path)
    outcome = command(*PROFILE, methods=LatencyMethods(profile=lambda *args, **rest: made))
    assert outcome.status == 0, outcome.err
    assert LatencyTable.load(tmp_path / "latency-nano-cpu.json") == made


def test_a_profile_that_is_stopped_writes_nothing(tmp_path: Path) -> None:
    def interrupted(*args: object, **rest: object) -> LatencyTable:
        raise Interrupted

    methods = LatencyMethods(profile=interrupted)
    outcome = command(*PROFILE, "--out", tmp_path / "table.json", methods=methods)
    assert outcome.status == 130
    assert "stopped" in outcome.out
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_there_is_anything_to_save_ends_in_one_line(
    sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def configuring(**_: object) -> None:
        if sent == signal.SIGINT:  # which may be ignored where tests run in the background
            raise KeyboardInterrupt
        os.kill(os.getpid(), sent)

    monkeypatch.setattr("nas.runs.configure.configure", configuring)
    outcome = command(*SEARCH)
    by = "" if sent == signal.SIGINT else f" by {sent.name}"
    assert (outcome.status, outcome.out, outcome.err) == (128 + sent, "", f"stopped{by}\n")


def test_two_hyphens_are_no_value_of_a_flag(tmp_path: Path) -> None:
    outcome = command("search", "--budget", "1G", "--trials=--", "--out", tmp_path / "run")
    assert (outcome.status, outcome.err) == (2, "error: --trials=--: '--' is no value\n")
