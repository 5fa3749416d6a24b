"""An architecture as a picture: from the image down to the class scores, in SVG.

To the left each stage's map, whose area shows its tokens; in the middle the blocks, whose width
shows the channels, with a mixer's heads side by side and the feed-forward below, whose height shows
its ratio; to the right their words and multiply-adds. Blocks that repeat are drawn once, with how
often. Below, what each part takes of all multiply-adds and, where it is known, of the time. Ink is
the page's text colour, and fills are of middle brightness, so that light and dark pages suit it.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.report.look import FONT, INK
from nas.report.svg import element, polygon, rectangle, text, titled
from nas.utilities.units import format_count, format_milliseconds
from search_space import Architecture, Cost, Stage, cost_table, map_sizes, total_cost
from search_space.parts import POOLINGS, ChannelGroup, FeedForward, Sight

if TYPE_CHECKING:
    from nas.report.description import PartLatency

PAPER, DARK_PAPER, DARK_INK = "#FFFFFF", "#161616", "#DDDDDD"
"""Backgrounds of a picture that is a file of its own, and its text on the dark one."""

SIGHTS: Mapping[Sight | None, str] = {
    "windows": "#0072B2",
    "reduced map": "#B35C00",
    "sampled map": "#A14C86",
    "whole map": "#C03B2B",
    "neighbours": "#1B7F5C",
    None: "#5B6470",
}
"""Colour of channels by what their tokens see; white text on each has a contrast above 4.5."""

FEED_FORWARD, CHANGE = "#8A929C", "#9AA1A9"
"""Colours of feed-forwards, and of what changes the number of channels."""

FAINT = 0.28
"""Opacity of what is borrowed."""

# Lengths are in units of the picture, which is `WIDTH` wide and whose text is `TEXT_SIZE` high.
WIDTH, MARGIN = 420, 8
RIGHT = WIDTH - MARGIN
TEXT_SIZE, SMALL, LINE, LETTER = 12, 10, 15, 7
"""Sizes of text, of lines, and how wide a letter is in a wide font."""
GAP, SMALL_GAP = 10, 3

MAP_SIDE = 44
FOLD_RIGHT = 82
BAR_LEFT, BAR_WIDTH, LEAST_BAR = 98, 140, 3
LABEL_LEFT, LABEL_LETTERS = 243, 18
MIXER_HEIGHT, BRANCH_HEIGHT, STEP = 18, 12, 5
MARKED_HEAD = 9
"""Least width of a head that has room for its mark."""
CHANGE_HEIGHT, SHARE_HEIGHT, KEY_SIDE = 12, 14, 10
RATIO_HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 2.5, 4, 24
"""Height of a feed-forward for each unit of its ratio, and its bounds."""


@dataclass(frozen=True)
class Fold:
    """Blocks of a stage that come one after the other several times.

    Attributes:
        times: How often.
        rows: First block and number of equal blocks of each row, the first time.
    """

    times: int
    rows: tuple[tuple[int, int], ...]


def folds(stage: Stage) -> list[Fold]:
    """The blocks of a canonical stage, so that what repeats stands there once.

    A block that lends its attention map stands before a row of those that borrow it.
    """
    whole, rest = divmod(stage.depth, stage.sharing)

    def rows(first: int, count: int) -> tuple[tuple[int, int], ...]:
        borrowers = ((first + 1, count - 1),) if count > 1 else ()
        return ((first, 1), *borrowers)

    found = [Fold(whole, rows(0, stage.sharing))]
    return [*found, Fold(1, rows(whole * stage.sharing, rest))] if rest else found


def architecture_svg(
    architecture: Architecture,
    *,
    name: str,
    image_size: int,
    num_classes: int,
    latency: Sequence[PartLatency] = (),
    standalone: bool = False,
) -> str:
    """The picture of an architecture.

    Args:
        architecture: What to draw.
        name: What to call it.
        image_size: Side of the image in pixels.
        num_classes: Outputs of the classifier.
        latency: What its parts take, on one device or several.
        standalone: Whether it is a file of its own, with a background, and not part of a page.
    """
    drawing = _Drawing(architecture.canonical(), image_size, num_classes)
    drawing.draw(latency)
    height = drawing.y + MARGIN
    paper = rectangle(0, 0, WIDTH, height, class_="paper", rx=MARGIN)
    return element(
        "svg",
        element("title", html.escape(name)),
        element("desc", html.escape(drawing.described())),
        *([element("style", _STYLE), paper] if standalone else []),
        *drawing.elements,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        font_family=FONT,
        font_size=TEXT_SIZE,
        fill="currentColor",
    )


_STYLE = (
    f"svg{{color:{INK}}}.paper{{fill:{PAPER}}}"
    f"@media(prefers-color-scheme:dark){{svg{{color:{DARK_INK}}}.paper{{fill:{DARK_PAPER}}}}}"
)


NO_BREAK = "\N{NO-BREAK SPACE}"

_KEY = (
    "Colours: what the tokens of those channels see. Numbers: side of a window or a kernel, or by "
    "what the map is reduced. Squares: the maps. Dashed: an attention map that is borrowed, or "
    "tokens that are no map."
)


class _Drawing:
    """What is drawn of a canonical architecture so far, and how far down that reaches."""

    def __init__(self, architecture: Architecture, image_size: int, num_classes: int) -> None:
        self.architecture = architecture
        self.image_size, self.num_classes = image_size, num_classes
        sizes = {"image_size": image_size, "num_classes": num_classes}
        self.costs = {row.name: row.cost for row in cost_table(architecture, **sizes)}
        self.total = total_cost(architecture, **sizes)
        self.maps = map_sizes(image_size, architecture)
        widths = [stage.width for stage in architecture.stages]
        self.stem_width = architecture.stem.width_of(widths[0])
        self.scale = BAR_WIDTH / max(*widths, self.stem_width)
        self.colors: dict[str, str] = {}
        self.elements: list[str] = []
        self.y = float(MARGIN)

    def draw(self, latency: Sequence[PartLatency]) -> None:
        """Everything, from top to bottom."""
        stages = self.architecture.stages
        self._line(f"image {self.image_size}×{self.image_size}", "multiply-adds")
        self._change("stem", 0, self.stem_width, self.architecture.stem.word(stages[0].width).text)
        previous = self.stem_width
        for index, stage in enumerate(stages):
            if entry := _entry_words(stage):
                self._change(f"stages.{index}.entry", previous, stage.width, entry)
            self._stage(index)
            previous = stage.width
        self._rule()
        classes = f"{self.num_classes:,} classes"
        self._change(
            "head", previous, 0, f"{self.architecture.head.word(previous).text}, {classes}"
        )
        self._rule()
        macs = {name: float(cost.macs) for name, cost in self.costs.items()}
        self._shares("multiply-adds", macs, _macs(self.total))
        for parts in latency:
            told = format_milliseconds(parts.total_ms)
            self._shares(f"time on {parts.device}", parts.milliseconds, told)
        self._key()

    def described(self) -> str:
        """The same in words."""
        side, stages = self.image_size, self.architecture.stages
        told = [
            f"{self._heading(index)}: {stage}; {_macs(self._stage_cost(index))} multiply-adds."
            for index, stage in enumerate(stages)
        ]
        first = f"From an image of {side}×{side} pixels to {self.num_classes:,} classes."
        params = format_count(self.total.params)
        return " ".join(
            [first, *told, f"In all {_macs(self.total)} multiply-adds, {params}parameters."]
        )

    # Each of these draws something below what is there, and moves `y` down.

    def _line(self, left: str, right: str, *, weight: str = "normal") -> None:
        baseline = self.y + TEXT_SIZE
        self._add(text(left, MARGIN, baseline, font_weight=weight))
        self._add(text(right, RIGHT, baseline, text_anchor="end", font_weight=weight))
        self.y += LINE + SMALL_GAP

    def _rule(self) -> None:
        line = f"M{MARGIN} {self.y:g}H{RIGHT}"
        self._add(element("path", d=line, stroke="currentColor", stroke_opacity=FAINT))
        self.y += SMALL_GAP

    def _band(self, height: float, words: Sequence[str], macs: int = 0) -> float:
        """Make room for something so high, with words and a cost beside it; where it begins."""
        # Words of several parts stay together.
        joined = " ".join(word.replace(" ", NO_BREAK) for word in words)
        lines = textwrap.wrap(joined, LABEL_LETTERS)
        band = max(height, LINE * len(lines))
        top = self.y + (band - LINE * len(lines)) / 2
        for number, line in enumerate(lines):
            self._add(
                text(line.replace(NO_BREAK, " "), LABEL_LEFT, top + LINE * number + TEXT_SIZE)
            )
        if macs:
            self._add(text(format_count(macs).strip(), RIGHT, top + TEXT_SIZE, text_anchor="end"))
        self.y += band
        return self.y - (band + height) / 2

    def _change(self, part: str, before: int, after: int, words: str) -> None:
        """What changes the number of channels: the stem, how a stage begins, or the head."""
        cost = self.costs.get(part, Cost())
        top, middle = self._band(CHANGE_HEIGHT, words.split(), cost.macs), BAR_LEFT + BAR_WIDTH / 2
        upper, lower, bottom = self._bar(before) / 2, self._bar(after) / 2, top + CHANGE_HEIGHT
        corners = [(middle - upper, top), (middle + upper, top)]
        corners += [(middle + lower, bottom), (middle - lower, bottom)]
        self._add(titled(f"{words}: {self._told(cost)}", polygon(corners, fill=CHANGE)))
        self.y += GAP / 2

    def _stage(self, index: int) -> None:
        """A stage's heading, its map and its blocks."""
        stage, (rows, columns) = self.architecture.stages[index], self.maps[index]
        self._rule()
        self._line(self._heading(index), _macs(self._stage_cost(index)), weight="bold")
        top, most = self.y, max(1, *(height * width for height, width in self.maps))
        side = MAP_SIDE * math.sqrt(rows * columns / most)
        dashes = {"stroke_dasharray": "3 2"} if stage.class_token else {}
        square = rectangle(
            MARGIN, top, side, side, fill=CHANGE, fill_opacity=FAINT, stroke=CHANGE, **dashes
        )
        self._add(titled(self._heading(index), square))
        for fold in folds(stage):
            self._fold(index, fold)
        self.y = max(self.y, top + side + GAP)

    def _fold(self, index: int, fold: Fold) -> None:
        """Blocks that come one after the other, and how often they do."""
        top = self.y
        lender, *borrowers = [self._row(index, first, count) for first, count in fold.rows]
        for borrower in borrowers:
            left = self._left(self.architecture.stages[index])
            line = f"M{left - 2:g} {lender:g}h-6V{borrower:g}h3"
            self._add(element("path", d=line, fill="none", stroke="currentColor"))
            tip = [(left - 6, borrower - 3), (left - 1, borrower), (left - 6, borrower + 3)]
            self._add(polygon(tip))
        if fold.times > 1:
            bottom = self.y - GAP
            line = f"M{FOLD_RIGHT} {top:g}h-4V{bottom:g}h4"
            self._add(element("path", d=line, fill="none", stroke="currentColor"))
            baseline = (top + bottom + SMALL) / 2
            self._add(text(f"×{fold.times}", FOLD_RIGHT - 7, baseline, text_anchor="end"))

    def _row(self, index: int, first: int, count: int) -> float:
        """A block, or some that borrow the same attention map; the middle of the mixer."""
        stage, cost = self.architecture.stages[index], self.costs[f"stages.{index}.blocks.{first}"]
        told = f"each block: {self._told(cost)}"
        if stage.map_role(first) == "borrow":
            words = ["borrows that map" if count == 1 else f"{count} more borrow it"]
            middle = self._mixer(stage, words, cost, told, borrows=True)
        else:
            sharing = stage.sharing if stage.lends_map(first) else 1
            words = [word.text for word in stage.mixer.words(sharing)]
            middle = self._mixer(stage, words, cost, told, borrows=False)
        self.y += SMALL_GAP
        if stage.feed_forward is not None:
            self._feed_forward(stage, stage.feed_forward, told)
        self.y += GAP
        return middle

    def _mixer(
        self, stage: Stage, words: Sequence[str], cost: Cost, told: str, *, borrows: bool
    ) -> float:
        """The groups of channels of a mixer, or a dotted line for none; the middle of them."""
        groups, x = stage.mixer.groups(stage.width), self._left(stage)
        steps = sum(group.reads_previous for group in groups)
        deep = BRANCH_HEIGHT if steps else MIXER_HEIGHT
        height = deep + STEP * steps if groups else 0
        top = y = self._band(height, words, cost.macs)
        if not groups:
            line = f"M{x:g} {top:g}h{self._bar(stage.width):g}"
            self._add(element("path", d=line, stroke="currentColor", stroke_dasharray="1 3"))
        for group in groups:
            y += STEP if group.reads_previous else 0
            self._group(group, x, y, deep, borrows=borrows, told=told)
            x += self.scale * group.channels
        return top + height / 2

    def _feed_forward(self, stage: Stage, feed_forward: FeedForward, told: str) -> None:
        """Higher the larger its ratio, with a stripe where it looks at neighbours."""
        word, x, width = feed_forward.word.text, self._left(stage), self._bar(stage.width)
        height = min(max(RATIO_HEIGHT * feed_forward.ratio, LEAST_HEIGHT), MOST_HEIGHT)
        top = self._band(height, [word])
        grey = self.colors["feed-forward"] = FEED_FORWARD
        shapes = [rectangle(x, top, width, height, fill=grey)]
        if not feed_forward.operator.suits_sequences:
            green = self.colors["neighbours"] = SIGHTS["neighbours"]
            shapes.append(rectangle(x, top + height / 3, width, height / 3, fill=green))
        hidden = f"feed-forward {word}, {stage.hidden:,} channels inside"
        self._add(titled(f"{hidden}\n{told}", *shapes))

    def _group(
        self, group: ChannelGroup, x: float, y: float, height: float, *, borrows: bool, told: str
    ) -> None:
        """Some channels of a mixer."""
        color, width = SIGHTS[group.sight], max(self.scale * group.channels, 1)
        self.colors[group.sight or "others"] = color
        inset = 1 if group.alone and width > LEAST_BAR else 0.25
        look = {"fill": color}
        if borrows:
            look |= {"fill_opacity": f"{FAINT}", "stroke": color, "stroke_dasharray": "3 2"}
        shapes = [rectangle(x + inset, y, width - 2 * inset, height, **look)]
        cell = width / max(group.heads, 1)
        if cell >= LEAST_BAR:
            lines = "".join(f"M{x + cell * n:g} {y:g}v{height}" for n in range(1, group.heads))
            shapes += [element("path", d=lines, stroke=PAPER)] if lines else []
        if group.mark and cell >= max(MARKED_HEAD, SMALL * 0.7 * len(group.mark)):
            ink, baseline = "currentColor" if borrows else PAPER, y + height / 2 + SMALL * 0.36
            shapes += [
                _small(group.mark, x + cell * (n + 0.5), baseline, fill=ink)
                for n in range(max(group.heads, 1))
            ]
        channels = f"{group.text}, {group.channels:,} channels"
        self._add(
            titled(f"{channels}{' (attention map borrowed)' if borrows else ''}\n{told}", *shapes)
        )

    def _shares(self, what: str, values: Mapping[str, float], total: str) -> None:
        """A bar of what each part takes of all, the stages by turns darker and lighter."""
        self._line(what, total)
        whole, x = sum(values.values()) or 1.0, float(MARGIN)
        spans: dict[str, tuple[float, float]] = {}
        for part, value in values.items():
            width = (RIGHT - MARGIN) * value / whole
            of = part.split(".")[1] if "." in part else part
            opacity = 0.35 if of.isdecimal() and int(of) % 2 else 0.65
            told = f"{_part_name(part)}: {value / whole:.1%} of {what}"
            # A thin edge of the background tells a part from the next.
            bar = rectangle(x, self.y, max(width - 0.5, 0), SHARE_HEIGHT, fill_opacity=opacity)
            self._add(titled(told, bar))
            spans[of] = spans.get(of, (x, x))[0], x + width
            x += width
        self.y += SHARE_HEIGHT
        for of, (begin, end) in spans.items():
            name = f"{int(of) + 1}" if of.isdecimal() else of
            if end - begin >= LETTER * len(name):
                self._add(_small(name, (begin + end) / 2, self.y + SMALL + 1))
        self.y += LINE + SMALL_GAP

    def _key(self) -> None:
        """What the colours and the numbers in the bars mean."""
        x = float(MARGIN)
        for name, color in self.colors.items():
            width = KEY_SIDE + SMALL_GAP + LETTER * len(name) + GAP
            if x + width > RIGHT:
                x, self.y = float(MARGIN), self.y + LINE
            self._add(rectangle(x, self.y + 1, KEY_SIDE, KEY_SIDE, fill=color))
            self._add(text(name, x + KEY_SIDE + SMALL_GAP, self.y + KEY_SIDE))
            x += width
        self.y += LINE
        letters = (RIGHT - MARGIN) * TEXT_SIZE / (LETTER * SMALL)
        for line in textwrap.wrap(_KEY, int(letters)):
            self._add(text(line, MARGIN, self.y + SMALL, font_size=SMALL))
            self.y += SMALL + SMALL_GAP

    # What they draw from.

    def _add(self, markup: str) -> None:
        self.elements.append(markup)

    def _bar(self, channels: int) -> float:
        """How wide so many channels are."""
        return max(self.scale * channels, LEAST_BAR)

    def _left(self, stage: Stage) -> float:
        """Where the bars of a stage begin."""
        return BAR_LEFT + (BAR_WIDTH - self._bar(stage.width)) / 2

    def _heading(self, index: int) -> str:
        stage, (rows, columns) = self.architecture.stages[index], self.maps[index]
        tokens = f"{columns} tokens" if stage.class_token else f"{rows}×{columns}"
        blocks = "block" if stage.depth == 1 else "blocks"
        return f"stage {index + 1}: {tokens}, {stage.width} channels, {stage.depth} {blocks}"

    def _stage_cost(self, index: int) -> Cost:
        """Of a stage's blocks."""
        blocks = f"stages.{index}.blocks."
        return sum((c for part, c in self.costs.items() if part.startswith(blocks)), Cost())

    def _told(self, cost: Cost) -> str:
        share = cost.macs / max(self.total.macs, 1)
        params = format_count(cost.params)
        return f"{_macs(cost)} multiply-adds ({share:.1%} of all), {params}parameters"


def _small(words: str, middle: float, baseline: float, fill: str = "currentColor") -> str:
    """Small text around a point."""
    return text(words, middle, baseline, text_anchor="middle", font_size=SMALL, fill=fill)


def _macs(cost: Cost) -> str:
    return format_count(cost.macs).strip()


def _entry_words(stage: Stage) -> str:
    """How a stage begins; nothing where it begins at once."""
    words = [POOLINGS[stage.pooling].word().text] if stage.pooling else []
    words += [f"positions {stage.position}×{stage.position}"] if stage.position else []
    words += ["class token"] if stage.adds_class_token else []
    return ", ".join(words)


def _part_name(part: str) -> str:
    """A row of the table of costs, for people, such as `stage 2, block 1`."""
    _, *rest = part.split(".")
    if not rest:
        return part
    stage, what, *block = rest
    return f"stage {int(stage) + 1}, " + (f"block {int(block[0]) + 1}" if block else what)
