"""What the words of summaries mean, as the parts themselves say it."""

from collections.abc import Iterable

from search_space import Architecture


def legend(architectures: Iterable[Architecture]) -> list[tuple[list[str], str]]:
    """Every word of some architectures and what it means, in the order of their appearance.

    Words that mean the same, since they differ in their numbers alone, stand together.
    """
    words: dict[str, dict[str, None]] = {}
    for architecture in architectures:
        for word in architecture.words:
            words.setdefault(word.meaning, {})[word.text] = None
    return [(list(texts), meaning) for meaning, texts in words.items()]
