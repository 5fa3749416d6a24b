"""`--teacher` and `--token-labels`, from the command line to the end of a run and a retraining."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from given_teachers import MODEL, classifier, teacher_file
from safetensors.torch import save_file
from small_runs import SMALL, command

from nas.export.pretrained import read_pretrained
from nas.runs.configure import configure
from nas.runs.folder import RunFolder
from nas.training.given_teacher import Answers, GivenTeacher
from nas.utilities.errors import InputError
from search_space import PRESETS

NANO: dict[str, Any] = {"space": "nano", "budget": "200MFLOPs", "steps": 2}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher_file(tmp_path_factory.mktemp("teacher"))


def test_a_teacher_is_part_of_the_configuration_by_its_name_and_the_digest_of_its_weights(
    file: Path, tmp_path: Path
) -> None:
    plain = configure(**NANO)
    taught, moved, dense = (
        configure(**NANO, teacher=f"{MODEL}:{where}", token_labels=tokens)
        for where, tokens in (
            (file, False),
            (shutil.copy(file, tmp_path), False),
            (file, True),
        )
    )
    assert taught.teacher is not None
    assert taught.config.teacher == taught.teacher.identity
    assert taught.config.digest == moved.config.digest
    digests = {some.config.digest for some in (plain, taught, dense)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"token_labels": True, "proxy_size": 32, "space": PRESETS["tiny"]},
            "`token_labels`: of 32 px the last map has one place alone",
        ),
        (
            {"token_labels": True, "proxy_size": 224, "space": "psvit"},
            "`token_labels`: the network reads a class token",
        ),
    ],
)
def test_token_labels_are_refused_where_subnets_have_no_places(
    file: Path, asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        configure(**NANO | {"budget": "2GFLOPs"} | asked, teacher=f"{MODEL}:{file}")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--token-labels",), "--token-labels: whose? They need a --teacher"),
        (("--teacher", f"{MODEL}:"), f"--teacher {MODEL}:: legal: MODEL, or MODEL:CHECKPOINT"),
        (("--teacher", MODEL), f"--teacher {MODEL}: it tells 1,000 classes apart"),
    ],
)
def test_a_search_and_a_retraining_refuse_in_one_line_and_leave_nothing(
    small_run: Path, tmp_path: Path, flags: tuple[str, ...], told: str
) -> None:
    searched = command("search", *SMALL, *flags, "--out", tmp_path / "run")
    retrained = command("retrain", small_run, "--name", "taught", *flags)
    for outcome in (searched, retrained):
        assert outcome.status == 2
        assert outcome.err.startswith(f"error: {told}")
        assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert not (small_run / "taught").exists()


@pytest.mark.usefixtures("undrawn", "few_test_images")
@pytest.mark.slow
def test_a_run_with_a_teacher_goes_on_with_it_alone_and_all_its_trainings_ask_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    answers = GivenTeacher.answers

    def counted(self: GivenTeacher, images: Any, **how: Any) -> Answers:
        asked.append(len(images))
        return answers(self, images, **how)

    monkeypatch.setattr(GivenTeacher, "answers", counted)
    teacher = f"{MODEL}:{teacher_file(tmp_path / 'a')}"
    run = tmp_path / "run"
    flags = *SMALL, "--proxy-size", "64", "--steps", "2", "--trials", "2", "--out", run
    search = "search", *flags, "--short-list", "1", "--token-labels", "--teacher"
    done = command(*search, teacher)
    assert done.status == 0, done.err
    told = "as well, which gets their images at 64 × 64 px"
    assert told in " ".join(done.out.split())
    # Whole subnets, one of the two steps; the tryout's rungs of one step, to 3 and 9 steps.
    assert asked.count(8) > 1 + 9
    config = RunFolder(run).config
    assert config.teacher is not None
    assert config.token_labels

    again = command(*search, f"{MODEL}:{shutil.copy(tmp_path / 'a' / 'model_best.pth.tar', run)}")
    assert again.status == 0, again.err
    assert "supernet: trained already" in again.out
    other = command(*search, f"{MODEL}:{teacher_file(tmp_path / 'b', seed=1)}")
    assert other.status == 2
    assert "belongs to another configuration (teacher is " in other.err

    asked.clear()
    retrain = "retrain", run, "--steps", "2", "--batch-size", "6", "--token-labels", "--teacher"
    retrained = command(*retrain, teacher)
    assert retrained.status == 0, retrained.err
    assert asked == [6, 6]
    assert config.teacher.split()[1] in (run / "retrain" / "1" / "README.md").read_text()
    refused = command(*retrain, f"{MODEL}:{tmp_path / 'b' / 'model_best.pth.tar'}")
    assert refused.status == 2
    assert "was retrained otherwise (teacher is " in refused.err


def test_what_timm_gets_from_a_folder_is_a_network_to_begin_with(
    small_run: Path, tmp_path: Path
) -> None:
    import timm

    best = small_run / "best"
    model = timm.create_model("subnet", architecture=str(best), pretrained=True)
    timm.models.save_for_hf(model, tmp_path / "hub")
    begun = read_pretrained(f"local-dir:{tmp_path / 'hub'}")
    assert begun.digest == read_pretrained(best).digest

    timm.models.save_for_hf(classifier(), tmp_path / "other")
    with pytest.raises(InputError, match="a ResNet, and no network of ours"):
        read_pretrained(f"local-dir:{tmp_path / 'other'}")
    save_file({}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(InputError, match=r"^`init` local-dir:.*: timm cannot make it"):
        configure(**NANO, init=f"local-dir:{tmp_path / 'other'}")
