import pytest

from search_space import DESIGNS, Architecture, PublishedDesign, total_cost

# Parameters and 10^9 multiply-adds counted on the authors' code at 224 px, 1000 classes.
EXACT = {
    "Shunted-T": (11_553_576, 2.1467),
    "Shunted-S": (22_401_256, 4.9931),
    "Shunted-B": (39_614_376, 8.1498),
    "LIT-Ti": (19_886_272, 3.6137),
    "LIT-S": (27_973_720, 4.0766),
    "LIT-M": (49_372_264, 8.5925),
    "LIT-B": (87_292_384, 15.0275),
    "PSLT-Tiny": (4_298_988, 0.8999),
    "PSLT": (9_257_302, 1.9710),
    "PSLT-Large": (16_099_312, 3.4562),
    "DeiT-Ti": (5_717_416, 1.2537),
    "DeiT-S": (22_050_664, 4.5989),
    "PVT-Tiny": (13_229_288, 1.9329),
}
OURS = {
    "PSViT-1D-Ti",
    "PSViT-1D-S",
    "PSViT-2D-Ti",
    "PSViT-2D-S",
    "PLG-ViT-T",
    "LW-PLG-ViT-A",
    "LW-PLG-ViT-R",
}
CLASSIFIER = {"LIT-Ti": 512, "LIT-S": 768, "LIT-M": 768, "LIT-B": 1024}
"""Widths before the classifier of the designs whose printed parameters leave it out."""


def test_every_design_has_names_of_its_own_and_is_exact_or_marked_as_ours() -> None:
    assert {design.name for design in DESIGNS if design.exact} == EXACT.keys()
    assert {design.name for design in DESIGNS if not design.exact} == OURS
    for names in ([d.timm_name for d in DESIGNS], [d.architecture.hash for d in DESIGNS]):
        assert len(set(names)) == len(DESIGNS)


@pytest.mark.parametrize("name", EXACT)
def test_params_and_macs_are_those_counted_on_the_authors_code(name: str) -> None:
    (design,) = [design for design in DESIGNS if design.name == name]
    params, gmacs = EXACT[name]
    cost = total_cost(design.architecture, image_size=224, num_classes=1000)
    assert cost.params == params
    assert round(cost.macs / 1e9, 4) == gmacs


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
class TestDesign:
    def test_figures_of_the_paper_are_near(self, design: PublishedDesign) -> None:
        cost = total_cost(design.architecture)
        params = (cost.params - 1001 * CLASSIFIER.get(design.name, 0)) / 1e6
        if design.paper_params is not None:
            if not design.exact:
                assert params == pytest.approx(design.paper_params, rel=0.05)
            elif design.paper_params % 1:
                assert params == pytest.approx(design.paper_params, abs=0.06)
            else:
                assert int(params) == design.paper_params
        if design.paper_gmacs is not None:
            assert design.paper_gmacs == pytest.approx(cost.macs / 1e9, abs=0.1)
        if design.paper_top1 is not None:
            assert 50 < design.paper_top1 < 100

    def test_architecture_is_canonical_and_survives_json(self, design: PublishedDesign) -> None:
        assert design.architecture == design.architecture.canonical()
        assert Architecture.from_json(design.architecture.to_json()) == design.architecture


def test_attention_sharing_saves_what_its_definition_says() -> None:
    deit = next(d for d in DESIGNS if d.name == "DeiT-Ti").architecture
    (stage,) = deit.stages
    shared = deit.model_copy(update={"stages": (stage.model_copy(update={"sharing": 2}),)})
    before, after = total_cost(deit), total_cost(shared)
    assert before.params - after.params == 6 * 74_112
    assert round((before.macs - after.macs) / 6e6, 3) == 21.976
    assert round(after.macs / 1e9, 4) == 1.1218
