"""`nas compare`: several runs beside each other."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_runs import command, without_figures

import nas
from nas.report.comparison import Comparable
from nas.runs.compare import compare
from nas.runs.folder import RunFolder
from nas.utilities.files import write_text


@pytest.fixture(scope="module")
def looser(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The supernet of the small run, searched under a looser budget at random."""
    out = tmp_path_factory.mktemp("compare") / "looser"
    flags = ("--supernet", small_run, "--budget", "300MFLOPs", "--sampler", "random")
    size = ("--search-images", "40", "--workers", "0", "--trials", "9", "--short-list", "2")
    with without_figures():
        outcome = command("search", *flags, *size, "--out", out)
    assert outcome.status == 0, outcome.err
    return out


def two(*paths: Path, out: Path) -> list[Comparable]:
    return compare([nas.open_run(path) for path in paths], out)


@pytest.mark.usefixtures("undrawn")
def test_the_hypervolumes_have_one_room_and_are_told_after_as_many_evaluations(
    small_run: Path, looser: Path, tmp_path: Path
) -> None:
    (group,) = two(small_run, looser, out=tmp_path)
    (macs,) = [objective for objective in group.objectives if objective.name == "macs"]
    assert macs.limit == 300_000_000
    assert group.evaluations == 6
    assert [len(trace) for trace in group.traces] == [6, 9]
    first, second = group.rows()
    assert first["hypervolume_at_equal_evaluations"] == first["hypervolume"]
    assert second["hypervolume_at_equal_evaluations"] == group.traces[1][5]
    # Of one front the volume is its area: counted in cells, as a second way.
    rows = nas.open_run(small_run).trials.query("state == 'evaluated'")
    costs = [(step + 0.5) / 2000 * 300e6 for step in range(2000)]
    heights = [rows[rows["macs"] <= cost]["accuracy"].max() for cost in costs]
    area = pd.Series(heights).fillna(0.0).mean()
    assert first["hypervolume"] == pytest.approx(area, rel=0.01)


def test_the_page_and_the_tables_say_what_differs(
    small_run: Path, looser: Path, tmp_path: Path
) -> None:
    out = tmp_path / "beside"
    outcome = command("compare", small_run, looser, "--out", out)
    assert outcome.status == 0, outcome.err
    assert "volume at 6" in outcome.out
    page = (out / "compare.html").read_text()
    assert "Content-Security-Policy" in page
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=", page)
    for text in ("Comparison of 2 runs", "fronts-1", "hypervolumes-1", "sampler", "300 MMACs"):
        assert text in page
    assert "shown apart" not in page
    section = page[page.index("What differs in what was asked") :]
    assert "budget" in section
    assert "proxy_size" not in section
    runs = pd.read_csv(out / "runs.csv")
    assert runs["run"].tolist() == [small_run.name, "looser"]
    assert runs["evaluated"].tolist() == [6, 9]
    best = nas.open_run(looser).best
    assert runs["best_hash"][1] == best["hash"]
    assert runs["best_tried"][1] == pytest.approx(best["accuracy"])
    fronts = pd.read_csv(out / "fronts.csv")
    assert (fronts["run"] == "looser").sum() == len(nas.open_run(looser).front)


@pytest.mark.usefixtures("undrawn")
def test_python_gets_the_rows(small_run: Path, looser: Path, tmp_path: Path) -> None:
    rows = nas.compare(nas.open_run(small_run), looser, out=tmp_path)
    assert rows["group"].tolist() == [1, 1]
    assert (tmp_path / "compare.html").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("field", "value"), [("proxy_size", "64"), ("image_size", "192"), ("search_images", "39")]
)
def test_runs_at_other_sizes_are_shown_apart(
    small_run: Path, tmp_path: Path, field: str, value: str
) -> None:
    other = Path(shutil.copytree(small_run, tmp_path / "other"))
    summary = RunFolder(other).summary
    text = re.sub(rf'"{field}": \d+', f'"{field}": {value}', summary.read_text())
    write_text(summary, text)
    outcome = command("compare", small_run, other, "--out", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert "not to be compared across tables" in outcome.out
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "shown apart" in page
    assert pd.read_csv(tmp_path / "out" / "runs.csv")["group"].tolist() == [1, 2]


def test_runs_on_other_data_are_shown_apart(small_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(small_run, tmp_path / "other"))
    manifest = RunFolder(other).data
    text = re.sub(r'"name": "[^"]*"', '"name": "others"', manifest.read_text(), count=1)
    write_text(manifest, text)
    assert len(two(small_run, other, out=tmp_path / "out")) == 2
    assert "fronts-2" in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ((), "two runs or more are needed to compare"),
        (("SAME",), "given twice"),
        (("nowhere",), "nowhere: no run here (it has no config.json)"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    small_run: Path, tmp_path: Path, others: tuple[str, ...], told: str
) -> None:
    named = [small_run if other == "SAME" else other for other in others]
    outcome = command("compare", small_run, *named, "--out", tmp_path / "out")
    assert outcome.status == 2
    assert told in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused(
    small_run: Path, looser: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = command("compare", small_run, looser, "--out", tmp_path / "file" / "out")
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: --out {tmp_path / 'file' / 'out'}: cannot be written")
