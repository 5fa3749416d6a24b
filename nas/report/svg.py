"""Elements of SVG, as text."""

import html
from collections.abc import Sequence

Attribute = str | float


def element(tag: str, *inside: str, **attributes: Attribute) -> str:
    """An element; `inside` is markup, and an underscore in a name stands for a hyphen."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{named}>{''.join(inside)}</{tag}>" if inside else f"<{tag}{named}/>"


def titled(title: str, *inside: str) -> str:
    """Elements that hovering tells the title of."""
    return element("g", element("title", html.escape(title)), *inside)


def text(words: str, x: float, y: float, **attributes: Attribute) -> str:
    """A line of text whose baseline begins at a point."""
    return element("text", html.escape(words), x=x, y=y, **attributes)


def rectangle(x: float, y: float, width: float, height: float, **attributes: Attribute) -> str:
    """A rectangle by its upper left corner."""
    return element("rect", x=x, y=y, width=width, height=height, **attributes)


def polygon(points: Sequence[tuple[float, float]], **attributes: Attribute) -> str:
    """A closed line through points."""
    joined = " ".join(f"{_value(x)},{_value(y)}" for x, y in points)
    return element("polygon", points=joined, **attributes)


def _value(value: Attribute) -> str:
    return html.escape(value) if isinstance(value, str) else f"{round(value, 2):g}"
