import pytest

from search_space import DESIGNS, Architecture, PublishedDesign, total_cost

EXACT = {
    "Shunted-T": (11_553_576, 2.1467),
    "Shunted-S": (22_401_256, 4.9931),
    "Shunted-B": (39_614_376, 8.1498),
}


def test_every_design_has_names_of_its_own_and_an_exact_count() -> None:
    assert {design.name for design in DESIGNS} == EXACT.keys()
    for names in ([d.timm_name for d in DESIGNS], [d.architecture.hash for d in DESIGNS]):
        assert len(set(names)) == len(DESIGNS)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
class TestDesign:
    def test_params_and_macs_are_those_counted_on_the_authors_code(
        self, design: PublishedDesign
    ) -> None:
        params, gmacs = EXACT[design.name]
        cost = total_cost(design.architecture, image_size=224, num_classes=1000)
        assert cost.params == params
        assert round(cost.macs / 1e9, 4) == gmacs

    def test_figures_of_the_paper_are_the_counts_rounded(self, design: PublishedDesign) -> None:
        cost = total_cost(design.architecture)
        assert design.paper_params == pytest.approx(cost.params / 1e6, abs=0.06)
        assert design.paper_gmacs == pytest.approx(cost.macs / 1e9, abs=0.1)
        assert 50 < design.paper_top1 < 100

    def test_architecture_is_canonical_and_survives_json(self, design: PublishedDesign) -> None:
        assert design.architecture == design.architecture.canonical()
        assert Architecture.from_json(design.architecture.to_json()) == design.architecture
