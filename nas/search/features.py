"""Architectures as numbers, from which models of accuracy and merit learn."""

from collections.abc import Mapping, Sequence

from search_space import SearchSpace
from search_space.encoding import Value


def features(space: SearchSpace, taken: Mapping[str, Sequence[Value]]) -> list[float]:
    """One number for each choice of each gene of a space, in their order.

    Args:
        space: The space.
        taken: The choices of each gene that an architecture has: of a single one the number is 1,
            several have equal parts of it, and all others 0.
    """
    return [
        float(choice in taken[gene]) / len(taken[gene])
        for gene, choices in space.genes.items()
        for choice in choices
    ]
