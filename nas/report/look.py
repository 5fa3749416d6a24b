"""How all figures look: colours, letters, axes.

Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, INK = "#767676", "#222222"
GRID = "#E6E6E6"
RUN_COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")


def axis(title: str) -> dict[str, Any]:
    """An axis in a frame, with that title."""
    return {
        "gridcolor": GRID,
        "linecolor": INK,
        "mirror": True,
        "showline": True,
        "ticks": "outside",
        "tickcolor": INK,
        "zeroline": False,
        "automargin": True,
        "title": {"text": title, "font": {"size": 14}},
    }


def layout(height: int) -> dict[str, Any]:
    """Of a figure that is so many pixels high."""
    return {
        "height": height,
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "hoverlabel": {"align": "left", "bgcolor": "#FFFFFF", "font": {"color": INK}},
        "margin": {"l": 64, "r": 24, "b": 56, "t": 24},
        "template": "none",
    }
