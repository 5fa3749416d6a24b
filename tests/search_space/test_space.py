import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from search_space import (
    DESIGNS,
    PRESETS,
    Architecture,
    ArchitectureError,
    Cost,
    LocalGlobal,
    Rates,
    SearchSpace,
    total_cost,
)
from search_space.extremes import extreme, largest_that_fits

NANO, TINY, BASE = PRESETS["nano"], PRESETS["tiny"], PRESETS["base"]
SHUNTED_T, SHUNTED_S = DESIGNS[0].architecture, DESIGNS[1].architecture
presets = pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())


def single() -> SearchSpace:
    """A space whose every gene has one choice."""
    fields = json.loads(NANO.model_dump_json())
    for stage in fields["stages"]:
        for gene, choices in stage.items():
            if isinstance(choices, list):
                stage[gene] = choices[:1]
    return SearchSpace.model_validate(fields)


@pytest.fixture(scope="module")
def members() -> list[Architecture]:
    return list(NANO.enumerate())


class TestMembers:
    def test_count_is_the_number_of_different_networks(self, members: list[Architecture]) -> None:
        genotypes = [
            dict(zip(NANO.genes, values, strict=True))
            for values in itertools.product(*NANO.genes.values())
        ]
        hashes = {NANO.decode(genotype).hash for genotype in genotypes}
        assert len(hashes) < len(genotypes)
        assert NANO.count() == len(NANO) == len(hashes) == len(members)
        assert {member.hash for member in members} == hashes

    @presets
    def test_equivalents_are_the_choices_that_decode_to_the_same_architecture(
        self, space: SearchSpace
    ) -> None:
        rng = random.Random(0)
        for _ in range(3):
            architecture = space.sample(rng)
            genotype, same = space.genotype(architecture), space.equivalents(architecture)
            assert same.keys() == space.genes.keys()
            for gene, choices in space.genes.items():
                decoded = {c: space.decode({**genotype, gene: c}).hash for c in choices}
                wanted = [c for c, hash in decoded.items() if hash == architecture.hash]
                assert list(same[gene]) == wanted

    def test_a_space_too_large_to_list_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"base.* holds [\d,]+ architectures"):
            next(BASE.enumerate())

    def test_every_member_of_nano_is_the_decoding_of_its_genotype(
        self, members: list[Architecture]
    ) -> None:
        for member in members:
            assert NANO.decode(NANO.genotype(member)) == member == member.canonical()

    @presets
    def test_every_sample_is_the_decoding_of_its_genotype(self, space: SearchSpace) -> None:
        rng = random.Random(0)
        for _ in range(200):
            architecture = space.sample(rng)
            assert space.decode(space.genotype(architecture)) == architecture
            assert architecture in space

    def test_samples_depend_on_the_generator_alone(self) -> None:
        def draw(seed: int) -> list[str]:
            rng = random.Random(seed)
            return [BASE.sample(rng).hash for _ in range(20)]

        assert draw(1) == draw(1) != draw(2)

    @pytest.mark.slow
    def test_samples_reach_all_of_nano(self) -> None:
        rng = random.Random(0)
        assert len({NANO.sample(rng).hash for _ in range(5_000)}) == NANO.count()

    def test_genotype_ignores_choices_without_effect(self) -> None:
        stages = list(SHUNTED_T.stages)
        mixer = stages[0].mixer.model_copy(update={"window": 3})
        stages[0] = stages[0].model_copy(update={"conv_norm": "layer", "mixer": mixer})
        written_otherwise = SHUNTED_T.model_copy(update={"stages": tuple(stages)})
        assert BASE.genotype(written_otherwise) == BASE.genotype(SHUNTED_T)

    def test_base_contains_shunted_t(self) -> None:
        assert SHUNTED_T in BASE
        assert BASE.decode(BASE.genotype(SHUNTED_T)).hash == SHUNTED_T.hash

    def test_genotype_of_a_foreign_architecture_says_what_is_foreign(self) -> None:
        assert SHUNTED_S not in BASE
        with pytest.raises(ArchitectureError, match=r"the stem .* base"):
            BASE.genotype(SHUNTED_S)
        deeper = (SHUNTED_T.stages[0], SHUNTED_S.stages[3], *SHUNTED_T.stages[2:])
        foreign = SHUNTED_T.model_copy(update={"stages": deeper})
        with pytest.raises(ArchitectureError, match=r"stage 2 .*512x1.* 'base'"):
            BASE.genotype(foreign)
        assert "no architecture" not in BASE

    def test_decode_names_the_gene_that_is_missing_or_illegal(self) -> None:
        genotype = NANO.genotype(NANO.scaled(0.0))
        with pytest.raises(ArchitectureError, match=r"stage2\.width=48 .* legal: 32, 64"):
            NANO.decode({**genotype, "stage2.width": 48})
        del genotype["stage3.depth"]
        with pytest.raises(ArchitectureError, match=r"stage3\.depth has no value"):
            NANO.decode(genotype)

    def test_a_list_of_rates_loses_the_finest_where_global_heads_are_too_few(self) -> None:
        genotype = {**BASE.genotype(SHUNTED_T), "stage1.width": 32}
        mixer = BASE.decode(genotype).stages[0].mixer
        assert mixer == LocalGlobal(heads=1, aggregation=Rates(rates=(8,)))

    def test_local_ratio_is_rounded_down_to_heads(self) -> None:
        genotype = {**BASE.genotype(SHUNTED_T), "stage2.width": 96}
        locals_ = []
        for ratio in (0.0, 0.25, 0.5, 0.75, 1.0):
            mixer = BASE.decode({**genotype, "stage2.local_ratio": ratio}).stages[1].mixer
            assert isinstance(mixer, LocalGlobal)
            locals_.append(mixer.local_heads)
        assert locals_ == [0, 0, 1, 2, 3]


class TestMoves:
    @presets
    def test_a_mutant_is_another_member(self, space: SearchSpace) -> None:
        rng = random.Random(0)
        architecture = space.sample(rng)
        for _ in range(200):
            mutant = space.mutate(architecture, rng)
            assert mutant.hash != architecture.hash
            assert mutant in space
            architecture = mutant

    def test_mutation_keeps_most_genes(self) -> None:
        rng = random.Random(0)
        parent = BASE.genotype(BASE.scaled(1.0))
        changed = []
        for _ in range(200):
            child = BASE.genotype(BASE.mutate(BASE.scaled(1.0), rng))
            changed.append(sum(child[gene] != value for gene, value in parent.items()))
        assert min(changed) == 1
        assert sum(changed) / len(changed) < 4

    def test_mutants_of_one_parent_reach_every_gene(self) -> None:
        rng = random.Random(0)
        architecture = NANO.scaled(1.0)
        parent = NANO.genotype(architecture)
        changed = set()
        for _ in range(500):
            child = NANO.genotype(NANO.mutate(architecture, rng))
            changed |= {gene for gene, value in parent.items() if child[gene] != value}
        assert changed == {gene for gene, choices in NANO.genes.items() if len(choices) > 1}

    def test_the_only_member_of_a_space_has_no_mutant(self) -> None:
        space = single()
        assert space.count() == 1
        with pytest.raises(ArchitectureError, match="single architecture"):
            space.mutate(space.scaled(0.0), random.Random(0))

    def test_a_foreign_architecture_has_no_mutant(self) -> None:
        with pytest.raises(ArchitectureError):
            NANO.mutate(SHUNTED_T, random.Random(0))

    @presets
    def test_an_optuna_trial_chooses_every_gene(self, space: SearchSpace) -> None:
        architecture = space.sample(random.Random(5))
        genotype = space.genotype(architecture)
        trial = optuna.trial.FixedTrial(genotype)
        assert space.suggest(trial) == architecture
        assert trial.params == genotype

    def test_trials_of_a_study_give_members_and_keep_their_genes(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        seen = set()
        for _ in range(30):
            trial = study.ask()
            architecture = NANO.suggest(trial)
            assert architecture in NANO
            assert NANO.decode(trial.params) == architecture
            seen.add(architecture.hash)
        assert len(seen) > 15


KEYS: dict[str, Callable[[Cost], float]] = {
    "least MACs": lambda cost: cost.macs,
    "most MACs": lambda cost: -cost.macs,
    "least params": lambda cost: cost.params,
    "most params": lambda cost: -cost.params,
    "weighted": lambda cost: cost.macs - 50 * cost.params,
}


class TestSizes:
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
    @pytest.mark.parametrize("image_size", [224, 64, (45, 61)])
    def test_extreme_is_the_best_of_all_of_nano(
        self,
        members: list[Architecture],
        key: Callable[[Cost], float],
        image_size: int | tuple[int, int],
    ) -> None:
        def value(architecture: Architecture) -> float:
            return key(total_cost(architecture, image_size=image_size, num_classes=10))

        found = extreme(NANO, key, image_size=image_size, num_classes=10)
        assert found in NANO
        assert value(found) == min(map(value, members))

    @pytest.mark.slow
    @presets
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
    def test_no_sample_beats_the_extreme(
        self, space: SearchSpace, key: Callable[[Cost], float]
    ) -> None:
        rng = random.Random(0)
        found = extreme(space, key)
        assert found in space
        best = min(key(total_cost(space.sample(rng))) for _ in range(300))
        assert key(total_cost(found)) <= best

    @presets
    def test_scaling_grows_every_size_together(self, space: SearchSpace) -> None:
        sizes = [total_cost(space.scaled(step / 4)) for step in range(5)]
        assert sizes == sorted(sizes, key=lambda cost: cost.macs)
        assert sizes[0].macs < sizes[-1].macs
        smallest, largest = (space.genotype(space.scaled(fraction)) for fraction in (0.0, 1.0))
        for gene, choices in space.genes.items():
            if gene.split(".")[-1] in ("depth", "width", "ratio"):
                assert (smallest[gene], largest[gene]) == (choices[0], choices[-1])

    @presets
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8, 1.0])
    def test_clip_meets_its_predicate_and_leaves_no_single_size_to_raise(
        self, space: SearchSpace, share: float
    ) -> None:
        low, high = (total_cost(space.scaled(fraction)).macs for fraction in (0.0, 1.0))
        limit = low + share * (high - low)

        def fits(architecture: Architecture) -> bool:
            return total_cost(architecture).macs <= limit

        clipped = largest_that_fits(space, fits)
        assert clipped is not None
        assert fits(clipped)
        assert clipped in space
        genotype = space.genotype(clipped)
        for gene, choices in space.genes.items():
            position = choices.index(genotype[gene])
            if gene.split(".")[-1] in ("depth", "width", "ratio") and position + 1 < len(choices):
                assert not fits(space.decode({**genotype, gene: choices[position + 1]}))

    def test_clip_gives_the_largest_where_all_fits_and_nothing_where_nothing_does(self) -> None:
        assert largest_that_fits(BASE, lambda architecture: True) == BASE.scaled(1.0)
        assert largest_that_fits(BASE, lambda architecture: False) is None


Edit = Callable[[dict[str, Any], list[dict[str, Any]]], Any]

# What a hand might do to the JSON of nano, and what the error must say.
BROKEN: dict[str, tuple[Edit, list[str]]] = {
    "unknown field": (lambda top, stages: stages[1].update(widths=[32]), ["stages[1].widths"]),
    "missing name": (lambda top, stages: top.pop("name"), ["name", "required"]),
    "missing choices": (lambda top, stages: stages[0].pop("depth"), ["stages[0].depth"]),
    "no stages": (lambda top, stages: top.update(stages=[]), ["stages", "at least 1"]),
    "descending widths": (
        lambda top, stages: stages[1].update(width=[64, 32]),
        ["stages[1]", "width=[64, 32]", "ascending"],
    ),
    "width that is no multiple of a head": (
        lambda top, stages: stages[1].update(width=[40]),
        ["stages[1].width", "40", "head_dim=32"],
    ),
    "pooling in the first stage": (
        lambda top, stages: stages[0].update(pooling=["conv"]),
        ["stages[0].pooling", "empty where the stem does it all"],
    ),
    "no pooling in a later stage": (
        lambda top, stages: stages[1].update(pooling=[]),
        ["stages[1].pooling", "at least one"],
    ),
    "unknown mixer": (
        lambda top, stages: stages[0].update(mixer=["pool"]),
        ["stages[0]", "mixer", "'pool'", "none", "local_global"],
    ),
    "local ratio above one": (
        lambda top, stages: stages[0].update(local_ratio=[1.5]),
        ["stages[0]", "local_ratio", "1.5", "less than or equal to 1"],
    ),
    "unknown aggregation": (
        lambda top, stages: stages[0]["aggregation"][0].update(kind="rate"),
        ["stages[0].aggregation[0]", "'rate'", "'rates'", "'adaptive'", "'full'"],
    ),
    "negative ratio": (
        lambda top, stages: stages[0].update(ratio=[-1]),
        ["stages[0]", "ratio", "-1"],
    ),
    "ratio that gives no whole number of channels": (
        lambda top, stages: stages[0].update(ratio=[1.33]),
        ["stages[0]", "ratio", "1.33"],
    ),
    **{
        f"no choice of {gene}": (
            lambda top, stages, gene=gene: stages[0].update({gene: []}),  # type: ignore[misc]
            [f"stages[0].{gene}", "at least 1"],
        )
        for gene in (
            "depth",
            "width",
            "mixer",
            "sharing",
            "local_ratio",
            "aggregation",
            "feed_forward",
            "ratio",
        )
    },
}


class TestFiles:
    @presets
    def test_json_round_trip_keeps_the_space(self, space: SearchSpace, tmp_path: Path) -> None:
        file = tmp_path / "space.json"
        file.write_text(space.model_dump_json())
        again = SearchSpace.load(file)
        assert again == space
        assert again.count() == space.count()
        assert again.sample(random.Random(0)) == space.sample(random.Random(0))

    @pytest.mark.parametrize(("edit", "said"), BROKEN.values(), ids=BROKEN.keys())
    def test_error_of_a_hand_edited_space_is_one_line_that_names_file_and_field(
        self, edit: Edit, said: list[str], tmp_path: Path
    ) -> None:
        fields = json.loads(NANO.model_dump_json())
        edit(fields, fields["stages"])
        file = tmp_path / "edited.json"
        file.write_text(json.dumps(fields))
        with pytest.raises(ArchitectureError) as raised:
            SearchSpace.load(file)
        message = str(raised.value)
        assert message.startswith(f"{file}: ")
        assert len(message.splitlines()) == 1
        for part in said:
            assert part in message.removeprefix(str(file))

    def test_a_file_that_is_missing_or_no_json_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ArchitectureError, match=r"missing\.json: cannot be read \(No such"):
            SearchSpace.load(tmp_path / "missing.json")
        (tmp_path / "text.json").write_text("space = nano")
        with pytest.raises(ArchitectureError, match=r"text\.json: Invalid JSON"):
            SearchSpace.load(tmp_path / "text.json")


def test_a_rate_that_one_mixer_alone_has_is_held_against_its_map() -> None:
    fields = json.loads(NANO.model_dump_json())
    fields["stages"][2] |= {
        "mixer": ["depthwise", "local_global"],
        "local_ratio": [0],
        "aggregation": [{"kind": "adaptive"}, {"kind": "rates", "rates": [64]}],
    }
    with pytest.raises(ValidationError, match="rate 64 exceeds the side of the map"):
        SearchSpace.model_validate(fields)


def test_a_sequence_that_is_pooled_has_no_positions_of_a_map() -> None:
    psvit = next(d.architecture for d in DESIGNS if d.name.startswith("PSViT-1D"))
    fields = json.loads(psvit.to_json())
    (pooled, *_) = [stage for stage in fields["stages"] if stage["pooling"] == "max_pool_1d"]
    pooled["position"] = 7
    with pytest.raises(ArchitectureError, match="position must be null where a sequence is pooled"):
        Architecture.from_json(json.dumps(fields))
