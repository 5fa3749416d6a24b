"""The files that a run leaves to be read: two tables and two pages that open without a network."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nas.report.advice import advice
from nas.report.comparison import (
    Comparable,
    Compared,
    differing,
    fronts_table,
    runs_table,
)
from nas.report.curves import confusion_figure, retrained_figure, rungs_figure, supernet_figure
from nas.report.description import predicted_parts
from nas.report.effects import RunEffects, choice_text, gain_text, gene_text, interval_text
from nas.report.figures import (
    GENES_SHOWN,
    effects_figure,
    fronts_figure,
    hypervolume_figure,
    hypervolumes_figure,
    macs_latency_figure,
    pareto_figure,
    prediction_figure,
)
from nas.report.legend import legend
from nas.report.look import FONT
from nas.report.picture import architecture_svg
from nas.report.run_summary import RunSummary, count_text, percent, value_text
from nas.report.trainings import NO_TRAININGS, RetrainedNetwork, Trainings, retrained_table
from nas.search.effects import LEAST_ARCHITECTURES, LEAST_OF_A_CHOICE
from nas.search.front import (
    anchors,
    full_scales,
    hypervolume_trace,
    judged,
    pareto_front,
    ranked_front,
)
from nas.search.trials import UNNAMED_SOURCES
from nas.utilities.files import write_text
from nas.utilities.units import format_accuracy, format_seconds

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from nas.latency.table import LatencyTable
    from search_space import Architecture, SearchSpace


RELOAD_SECONDS = 10
"""Between two looks of a page at a run that goes on."""

NO_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({})
NO_TABLES: Mapping[str, LatencyTable] = MappingProxyType({})

LEADS_TOLD = 3
"""Genes whose lead is told in words at the top of a report."""

MOST_CLASSES = 40
"""Classes that the page of a retrained network shows; of more, the least accurate ones."""


def write_report(
    folder: Path,
    trials: pd.DataFrame,
    run: RunSummary,
    *,
    architectures: Mapping[str, Architecture] = NO_ARCHITECTURES,
    tables: Mapping[str, LatencyTable] = NO_TABLES,
    under_way: str = "",
    space: SearchSpace | None = None,
    trainings: Trainings = NO_TRAININGS,
) -> None:
    """Write `trials.csv`, `pareto.csv`, `pareto.html` and `report.html` into `folder`.

    Where enough was evaluated to say which choices matter, there is `effects.csv`, too; where
    networks were retrained, `retrained.csv` and a page for each of them. A reader sees each file as
    it was or as it will be, never a part. The pages hold plotly.js and forbid themselves every
    request, so they open offline.

    Args:
        folder: Of the run.
        trials: All that were decided.
        run: What was asked.
        architectures: By hash; those of the front are drawn, and the choices of all are compared,
            as far as they are given.
        tables: By device, what tells the time of their parts.
        under_way: How far the run is, if it goes on; the report then loads itself again and again.
        space: That was searched; without it nothing is said of its choices.
        trainings: What is known of how networks learned.

    Raises:
        InputError: If a table lacks a segment of an architecture that is drawn.
        OSError: The folder cannot be written.
    """
    front = pareto_front(judged(trials), run.objectives)
    alone = retrained_table(trials, trainings.retrained)
    plot = _plot(pareto_figure(trials, run, alone), "pareto")
    write_text(folder / "trials.csv", trials.to_csv(index=False))
    write_text(folder / "pareto.csv", front.to_csv(index=False))
    write_text(folder / "pareto.html", _page(_heading(run), plot))
    drawn = _drawn(trials, run, architectures, tables)
    effects = None if space is None else RunEffects.of(trials, architectures, space)
    if effects is not None and effects.inherited:
        write_text(folder / "effects.csv", effects.table().to_csv(index=False))
    report = _report(folder, trials, run, plot, drawn, effects, trainings, alone, under_way)
    write_text(folder / "report.html", _page(_heading(run), report, reloads=bool(under_way)))
    if len(alone):
        write_text(folder / "retrained.csv", alone.to_csv(index=False))
    else:
        (folder / "retrained.csv").unlink(missing_ok=True)
    for network in trainings.retrained:
        page = _retrained_page(network, run)
        write_text(folder / network.name / "report.html", _page(network.name, page))


def write_progress(path: Path, title: str, under_way: str, log: Sequence[str]) -> None:
    """Write the page of a run without trials, which loads itself again: lines of its log."""
    lines = html.escape("\n".join(log))
    heading = f"<h1>{html.escape(title)}</h1>{_warning(under_way)}"
    write_text(path, _page(title, f"{heading}<pre class='wide'>{lines}</pre>", reloads=True))


def _report(
    folder: Path,
    trials: pd.DataFrame,
    run: RunSummary,
    plot: str,
    drawn: str,
    effects: RunEffects | None,
    trainings: Trainings,
    alone: pd.DataFrame,
    under_way: str,
) -> str:
    """The body of `report.html`."""
    front = pareto_front(judged(trials), run.objectives)
    trace = hypervolume_trace(trials, run.objectives, run.reachable)
    parts = [f"<h1>{html.escape(_heading(run))}</h1>", _warning(under_way), _result(trials, run)]
    if effects is not None and effects.inherited:
        parts.append(_leads(effects))
    if trace and not under_way:
        steps = (
            f"<p>{html.escape(step.why)}<br>{_code(step.command)}</p>"
            for step in advice(folder, trials, run)
        )
        parts.append(_section("What to do next", "".join(steps)))
    parts.append(f"<section class='plot'>{plot}</section>")
    parts.append(drawn)
    parts.append(_trained_alone(alone, run, trainings.retrained))
    if effects is not None and trace:
        parts.append(_section("Which choices matter", _effects(effects)))
    if trace:
        scales = full_scales(run.objectives, run.reachable)
        full = ", ".join(o.named_amount(scales[o.name]) for o in run.searched_costs)
        caption = (
            f"{trace[-1]:.4f} at the end: the share that the front covers of the room between no "
            f"accuracy at full cost ({html.escape(full)}) and full accuracy at no cost. "
            "Where the curve is flat, the search found nothing better. Accuracies are inherited."
        )
        curve = (
            _plot(hypervolume_figure(trials, run), "hypervolume") + f"<p class='note'>{caption}</p>"
        )
        parts.append(_section("Hypervolume", curve))
        parts.append(_section(f"Pareto front ({len(front)})", _trials(front, run)))
    parts += [_latency(trials, run, device) for device in run.latency]
    parts.append(_section("What was asked and how it was measured", _asked(run)))
    parts.append(_section("Trials", _statistics(trials)))
    parts.append(_training(trials, trainings))
    return "\n".join(parts)


def _heading(run: RunSummary) -> str:
    return f"Architecture search: {run.data}, space {run.space}, budget {run.budget_text}"


def _result(trials: pd.DataFrame, run: RunSummary) -> str:
    """The answer, first of all."""
    compared = anchors(trials, run.objectives)
    if not compared:
        return (
            "<p class='lead'>No architecture was evaluated, so there is no best one. Trials: "
            f"{html.escape(count_text(trials))}.</p>"
        )
    _, row = compared[0]
    tried = not math.isnan(row["tried"])
    right = percent(row["tried"] if tried else row["accuracy"])
    how = f" after {int(row['tried_steps']):,} steps of training alone" if tried else ""
    if not math.isnan(row["scratch"]):
        how += (
            f" ({percent(row['scratch'])} after {int(row['scratch_steps']):,} from fresh weights, "
            "by which it was chosen)"
        )
    costs = ", ".join(f"<b>{html.escape(o.named_amount(row[o.name]))}</b>" for o in run.costs)
    lead = (
        f"The best architecture is right on <b>{right}</b> of the search split{how} and costs "
        f"{costs}."
    )
    ranking = f" {text[0].upper()}{text[1:]}." if (text := run.ranking_text(trials)) else ""
    note = (
        f"{run.accuracy_text}; ± is one standard error.{ranking} {run.cost_text}. Smallest and "
        "largest are by MACs, of those evaluated. The best of many on the same images reads a "
        "little high; retraining measures the test split."
    )
    table = _table(["", *_heads(run)], [[name, *_cells(row, run)] for name, row in compared])
    note = f"<p class='note'>{html.escape(note[0].upper() + note[1:])}</p>"
    return f"{_warning(run.warning(trials))}<p class='lead'>{lead}</p>{table}{note}"


def _leads(effects: RunEffects) -> str:
    """Which choices matter most, in words."""
    told = [
        f"{html.escape(gene_text(effect.gene))}: {_code(choice_text(best.choice))} has "
        f"<b>{100 * effect.lead.mean:.1f} points</b> more than {_code(choice_text(worst.choice))} "
        f"({interval_text(effect.lead)})"
        for effect in effects.clear[:LEADS_TOLD]
        if effect.lead is not None
        for best, *_, worst in [effect.ranked]
    ]
    others = len(effects.inherited) - len(effects.clear)
    if not told:
        return (
            f"<p>None of the {others} genes shows a clear difference at equal MACs, "
            f"by the inherited accuracies of {effects.evaluated} architectures.</p>"
        )
    return (
        "<p>Which choices matter, at equal MACs and by inherited accuracy (intervals of 95 %): "
        f"{'; '.join(told)}. The other {others} genes show no clear difference.</p>"
    )


def _effects(effects: RunEffects) -> str:
    """What each choice gives: a figure, what it means, and all of it as a table."""
    if not effects.inherited:
        return (
            f"<p>{effects.evaluated} evaluated architectures are too few to say "
            f"({LEAST_ARCHITECTURES} are needed).</p>"
        )
    note = (
        "Points that a choice gives over the mean of the known choices of its gene, between "
        "architectures of equal MACs, with intervals of 95&nbsp;%; by a linear model of "
        f"{effects.evaluated} architectures' genes and log MACs. Blue are leads that so many "
        "comparisons would hardly give by chance. An architecture in which a gene has no effect "
        "says nothing of it; one in which two choices mean the same counts for both; of a choice "
        f"that fewer than {LEAST_OF_A_CHOICE} made nothing is known. These are the "
        f"{min(GENES_SHOWN, len(effects.inherited))} genes of the largest leads; all are in the "
        "table and in effects.csv."
    )
    meaning = (
        "This is what the supernet says, and of the region that the search looked at, which is no "
        "random sample. Shared weights favour what learns fast beside all others, and effects are "
        "added up: choices that are good only together are not seen. What a choice gives to a "
        "network that is trained alone may be different."
    )
    if effects.alone:
        meaning += (
            f" The orange squares say the same of the {effects.tried} that were trained alone, "
            "after equal steps; those that did well had more of them, so they read rather small."
        )
    elif effects.tried:
        meaning += (
            f" {effects.tried} were trained alone, too few to say the same of that "
            f"({LEAST_ARCHITECTURES} are needed)."
        )
    figure = _plot(effects_figure(effects), "effects")
    heads = ["gene", "choice", "architectures", "points, inherited (95 %)"]
    alone = {effect.gene: effect for effect in effects.alone}
    if alone:
        heads.append("points, alone (95 %)")
    rows = [
        [
            gene_text(effect.gene),
            choice_text(each.choice),
            str(each.architectures),
            gain_text(each.gain),
            *([gain_text(beside.gain)] if alone else []),
        ]
        for effect in effects.inherited
        for each, beside in zip(effect.choices, alone.get(effect.gene, effect).choices, strict=True)
    ]
    return (
        f"{figure}<p class='note'>{note}</p><p class='note'>{meaning}</p>"
        f"<details><summary>All choices as a table</summary>{_table(heads, rows)}</details>"
    )


def _drawn(
    trials: pd.DataFrame,
    run: RunSummary,
    architectures: Mapping[str, Architecture],
    tables: Mapping[str, LatencyTable],
) -> str:
    """Pictures of the front, the best first and in the open, and what its words mean."""
    rows = ranked_front(judged(trials), run.objectives).to_dict("records")
    rows = [row for row in rows if row["hash"] in architectures]
    if not rows:
        return ""
    pictures = []
    for row in rows:
        architecture = architectures[row["hash"]]
        times = [
            predicted_parts(architecture, table, f"the table of {device}")
            for device, table in tables.items()
        ]
        costs = ", ".join(objective.named_amount(row[objective.name]) for objective in run.costs)
        name = f"trial {row['number']}: {percent(row['accuracy'])}, {costs}"
        svg = architecture_svg(
            architecture,
            name=name,
            image_size=run.image_size,
            num_classes=run.num_classes,
            latency=times,
        )
        pictures.append((html.escape(name), svg))
    (best, opened), *others = pictures
    named = anchors(trials, run.objectives)
    shown = [row["hash"] for row in rows] + [row["hash"] for _, row in named]
    words = legend(architectures[hash] for hash in shown if hash in architectures)
    told = "".join(
        f"<dt>{', '.join(map(_code, texts))}</dt><dd>{html.escape(meaning)}</dd>"
        for texts, meaning in words
    )
    folded = "".join(f"<details><summary>{name}</summary>{svg}</details>" for name, svg in others)
    return _section(
        "Architectures of the front",
        f"<div class='drawn'><div><p><b>The best</b>, {best}</p>{opened}{folded}</div>"
        f"<div><p><b>What the words mean</b></p><dl class='legend'>{told}</dl></div></div>",
    )


def _latency(trials: pd.DataFrame, run: RunSummary, device: str) -> str:
    """What a device's latency was predicted and measured to be, and how far MACs mislead."""
    found, name = run.latency[device], f"latency-{device.replace(':', '-')}"
    note = f"{found.conditions}. The table's error: {found.error}."
    if not found.measured:
        note += " The device is not here: latencies are predicted and were not measured."
    plots = _plot(prediction_figure(trials, run, device), f"{name}-prediction")
    plots += _plot(macs_latency_figure(trials, run, device), f"{name}-macs")
    return _section(f"Latency on {device}", f"<p class='note'>{html.escape(note)}</p>{plots}")


def _trials(rows: pd.DataFrame, run: RunSummary) -> str:
    rows = rows.assign(accuracy=rows["inherited"])
    return _table(_heads(run), [_cells(row, run) for _, row in rows.iterrows()])


def _heads(run: RunSummary) -> list[str]:
    costs = [objective.label for objective in run.costs]
    return ["trial", *run.accuracy_labels, *costs, "from", "architecture"]


def _cells(row: pd.Series, run: RunSummary) -> list[str]:
    return [
        str(row["number"]),
        *run.accuracies(row).values(),
        *(value_text(row, objective) for objective in run.costs),
        str(row["source"]),
        str(row["summary"]),
    ]


def _asked(run: RunSummary) -> str:
    spans = (
        f"{o.amount(run.reachable[o.name][0])} to {o.named_amount(run.reachable[o.name][1])}"
        for o in run.costs
        if o.value is not None
    )
    spent = f"{run.supernet_steps:,} steps in {format_seconds(run.supernet_seconds)}"
    if run.supernet_run:
        spent += f", trained by {run.supernet_run}"
    final = f", {run.finalists} of them also from fresh weights," if run.finalists else ""
    listed = f"{run.short_list} trained alone{final} in {format_seconds(run.tryout_seconds)}"
    rows = {
        "data": f"{run.data}, {run.num_classes} classes",
        "space": f"{run.space}: {_large(run.space_size)} architectures, {', '.join(spans)}",
        "budget": run.budget_text,
        "cost": run.cost_text,
        "accuracy": run.accuracy_text,
        **{f"latency on {d}": f"{x.conditions}; {x.error}" for d, x in run.latency.items()},
        "supernet": spent,
        "search": f"{run.sampler}, seed {run.seed}, {format_seconds(run.search_seconds)}",
        **({"short list": listed} if run.short_list else {}),
        "device": run.device,
    }
    pairs = [(name, html.escape(text)) for name, text in rows.items()]
    pairs.insert(0, ("command", _code(run.command)))
    pairs += [("note", html.escape(note)) for note in run.notes]
    return _pairs(pairs)


def _large(count: int) -> str:
    if count < 1e9:
        return f"{count:,}"
    mantissa, exponent = f"{count:.1e}".split("e")
    return f"about {mantissa} × 10^{int(exponent)}"


def _statistics(trials: pd.DataFrame) -> str:
    seconds = trials.loc[trials["state"] == "evaluated", "seconds"].astype(float)
    rows = [("outcome", html.escape(count_text(trials)))]
    if len(seconds):
        middle, total = format_seconds(seconds.median()), format_seconds(seconds.sum())
        rows.append(("evaluation", f"median {middle} per architecture, {total} together"))
    failed = trials[trials["failure"] != ""].drop_duplicates("hash")
    for reason, count in failed["failure"].value_counts().items():
        rows.append((f"{count} failed", html.escape(str(reason))))
    sources = trials.loc[~trials["source"].isin(UNNAMED_SOURCES), "source"]
    if len(sources):
        names = ", ".join(html.escape(str(source)) for source in sources)
        rows.append(("given first", names))
    return _pairs(rows)


def _warning(text: str) -> str:
    """What a reader should see before the rest; nothing where there is no text."""
    return f"<p class='warning'>{html.escape(text)}</p>" if text else ""


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _code(text: str) -> str:
    return f"<code>{html.escape(text)}</code>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain strings: text columns align left, numbers right."""
    sides = list(map(_side, heads))

    def line(tag: str, cells: Sequence[str]) -> str:
        pairs = zip(sides, cells, strict=True)
        return f"<tr>{''.join(f'<{tag}{side}>{_unbroken(c)}</{tag}>' for side, c in pairs)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return (
        f"<div class='wide'><table><thead>{line('th', heads)}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _side(head: str) -> str:
    """The class of a column's cells: text, a latency, or a number."""
    if head in _TEXT_COLUMNS:
        return " class='text'"
    return " class='timed'" if head.startswith("latency on") else ""


def _unbroken(text: str) -> str:
    """Escaped text that a line breaks between the parts of a summary, if there is room for each."""
    return " | ".join(f"<span>{html.escape(part)}</span>" for part in text.split(" | "))


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names and values; names are plain text, values are HTML."""
    return "<dl>" + "".join(f"<dt>{html.escape(n)}</dt><dd>{v}</dd>" for n, v in rows) + "</dl>"


def _plot(figure: go.Figure, name: str) -> str:
    """The figure without plotly.js, which the page holds once."""
    from plotly.io import to_html

    config = {
        "displaylogo": False,
        "responsive": True,
        "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
        "toImageButtonOptions": {"filename": name, "scale": 2},
    }
    return str(to_html(figure, config=config, full_html=False, include_plotlyjs=False, div_id=name))


def _training(trials: pd.DataFrame, trainings: Trainings) -> str:
    """How the supernet and the short list learned, as far as it is known."""
    parts = []
    if trainings.supernet:
        note = (
            "Losses are those of the lessons, which change from one phase of the training to the "
            "next, and with them what a loss means. Accuracies are of three subnets on a part of "
            "the search split, seen on the way."
        )
        parts.append(_plot(supernet_figure(trainings), "supernet") + _note(note))
    if any(trainings.rungs.values()):
        note = (
            "The short list, trained alone from what it inherited (at 0 steps): after each rung "
            "those that stand first go on, by accuracy or, where that is too close to tell, by "
            "loss. Who wins a final climbs what it has left. Accuracies are of the search split."
        )
        parts.append(_plot(rungs_figure(trainings, trials), "rungs") + _note(note))
    return _section("Training", "".join(parts)) if parts else ""


def _trained_alone(
    alone: pd.DataFrame, run: RunSummary, retrained: Sequence[RetrainedNetwork]
) -> str:
    """What was retrained, beside what it inherited; `alone` is their `retrained_table`."""
    if not retrained:
        return ""
    of_search = {row["folder"]: row for row in alone.to_dict("records")}
    rows = []
    for network in retrained:
        trial = of_search.get(network.name)
        rows.append(
            [
                network.name,
                str(trial["number"]) if trial else "–",
                format_accuracy(trial["inherited"], run.search_images) if trial else "–",
                format_accuracy(network.exported, network.test_images),
                format_accuracy(network.retrained, network.test_images),
                f"{network.steps:,}",
                f"{network.image_size}",
                network.start,
            ]
        )
    heads = ["", "trial", "inherited", "exported", "retrained", "steps", "px", "from"]
    note = (
        "Inherited accuracies are of the search split; exported and retrained ones, before and "
        "after the training alone, of the test split. ± is one standard error."
    )
    links = ", ".join(
        f"<a href='{html.escape(quote(network.name))}/report.html'>{html.escape(network.name)}</a>"
        for network in retrained
    )
    pages = f"<p>Classes, confusions and the surest mistakes of each: {links}.</p>"
    curves = [network for network in retrained if network.curve]
    plot = _plot(retrained_figure(curves), "retrained") if curves else ""
    return _section("Trained alone", _table(heads, rows) + _note(note) + plot + pages)


def _retrained_page(network: RetrainedNetwork, run: RunSummary) -> str:
    """The body of a retrained network's page."""
    images = network.test_images
    lead = (
        f"Right on <b>{percent(network.retrained)}</b> of the test split of "
        f"{html.escape(run.data)}, after {network.steps:,} steps of training alone."
    )
    facts = [
        ("retrained", format_accuracy(network.retrained, images)),
        ("exported", format_accuracy(network.exported, images)),
        ("images", f"{images:,} at {network.image_size} px; ± is one standard error"),
        ("began with", html.escape(network.start)),
        ("learning rate", f"{network.lr:g} at its peak"),
        ("architecture", _code(network.hash)),
        ("run", f"<a href='../../report.html'>{html.escape(_heading(run))}</a>"),
    ]
    parts = [f"<h1>{html.escape(network.name)}</h1><p class='lead'>{lead}</p>{_pairs(facts)}"]
    if network.curve:
        parts.append(_section("Training", _plot(retrained_figure([network]), "curve")))
    if network.confusion:
        parts.append(_classes(network))
    if network.mistakes:
        parts.append(_mistakes(network))
    return "\n".join(parts)


def _classes(network: RetrainedNetwork) -> str:
    """How well each class is told, and what it is taken for; of many, those that are worst."""
    classes = network.classes
    by_accuracy = sorted(
        range(len(classes)),
        key=lambda label: 2.0 if (a := classes[label].accuracy) is None else a,
    )[:MOST_CLASSES]
    rows = [
        [
            known.name,
            f"{known.images:,}",
            "–" if known.accuracy is None else format_accuracy(known.accuracy, known.images),
            known.mistaken_for or "–",
        ]
        for known in map(classes.__getitem__, by_accuracy)
    ]
    table = _table(["class", "images", "accuracy", "most often taken for"], rows)
    shown = sorted(by_accuracy)
    many = len(shown) < len(classes)
    taken_for = taken_most(network.confusion, shown) if many else shown
    figure = confusion_figure(
        [classes[label] for label in shown],
        [classes[label].name for label in taken_for],
        [[network.confusion[true][taken] for taken in taken_for] for true in shown],
    )
    plot = _plot(figure, "confusion")
    note = "Each row is a true class, each column what its images were taken for. "
    if many:
        note += (
            f"Of {len(classes)} classes the {len(shown)} least accurate ones are shown, and the "
            f"{len(taken_for)} that these are taken for most often. "
        )
    note += "All are in classes.csv and confusion.csv."
    return _section("Classes", table) + _section("Confusion", plot + _note(note))


def taken_most(confusion: Sequence[Sequence[int]], true: Sequence[int]) -> list[int]:
    """What images of some classes are taken for most often: classes, at most `MOST_CLASSES`.

    Args:
        confusion: How many images of each class (rows) were taken for each class (columns).
        true: The classes, by their places in it.
    """
    often = [sum(confusion[label][taken] for label in true) for taken in range(len(confusion))]
    most = sorted(range(len(often)), key=lambda label: -often[label])[:MOST_CLASSES]
    return sorted(label for label in most if often[label])


def _mistakes(network: RetrainedNetwork) -> str:
    """The pictures of what it is surest of, and wrong."""
    pictures = "".join(
        f"<figure><img title='image {mistake.image}' alt='image {mistake.image}' "
        f"src='data:image/png;base64,{mistake.png}'><figcaption>"
        f"<b>{html.escape(mistake.predicted)}</b>, {percent(mistake.probability)} sure<br>"
        f"is {html.escape(mistake.truth)}</figcaption></figure>"
        for mistake in network.mistakes
    )
    note = "Images of the test split as the network saw them, and their numbers when hovered over."
    return _section("The surest mistakes", f"<div class='mistakes'>{pictures}</div>" + _note(note))


def _note(text: str) -> str:
    return f"<p class='note'>{html.escape(text)}</p>"


def write_comparison(folder: Path, groups: Sequence[Comparable]) -> None:
    """Write `compare.html`, `runs.csv` and `fronts.csv` into `folder`, which is created if needed.

    Raises:
        OSError: The folder cannot be written.
    """
    runs = [compared for group in groups for compared in group.runs]
    title = f"Comparison of {len(runs)} runs"
    parts = [f"<h1>{title}</h1>"]
    if len(groups) > 1:
        parts.append(
            "<p class='warning'>Not all of these runs have the same data and sizes of images. "
            "Accuracies and costs of one group say nothing beside those of another: they are shown "
            "apart.</p>"
        )
    parts += [_group(number, group) for number, group in enumerate(groups, start=1)]
    settings = differing(runs)
    if settings:
        table = _table(
            ["", *(compared.name for compared in runs)], [[name, *told] for name, told in settings]
        )
        parts.append(_section("What differs in what was asked", table))
    write_text(folder / "runs.csv", runs_table(groups).to_csv(index=False))
    write_text(folder / "fronts.csv", fronts_table(groups).to_csv(index=False))
    write_text(folder / "compare.html", _page(title, "\n".join(parts)))


def _group(number: int, group: Comparable) -> str:
    """The part of a comparison that is about runs which may be held against each other."""
    told = [_told(compared, row) for compared, row in zip(group.runs, group.rows(), strict=True)]
    labels = dict.fromkeys(label for facts in told for label in facts)
    table = _table(
        ["", *(compared.name for compared in group.runs)],
        [[label, *(facts.get(label, "–") for facts in told)] for label in labels],
    )
    room = ", ".join(
        f"{objective.label} up to {objective.amount(objective.limit)}"
        for objective in group.objectives
        if objective.limit is not None
    )
    note = (
        "Inherited accuracies are those of each run's own supernet; where these differ, what was "
        "trained alone compares architectures. Hypervolumes are of inherited accuracies, in the "
        f"same room for all ({room}), and fair after as many evaluations: {group.evaluations}."
    )
    fronts = "".join(
        f"<h3>{html.escape(compared.name)}</h3>"
        + _trials(pareto_front(judged(compared.trials), compared.run.objectives), compared.run)
        for compared in group.runs
    )
    body = (
        f"{table}<p class='note'>{html.escape(note)}</p>"
        f"{_plot(fronts_figure(group), f'fronts-{number}')}"
        f"{_plot(hypervolumes_figure(group), f'hypervolumes-{number}')}{fronts}"
    )
    return _section(group.title, body)


def _told(compared: Compared, row: Mapping[str, Any]) -> dict[str, str]:
    """What the table of a comparison says of a run, by labels."""
    run, best = compared.run, compared.best
    facts = {"limits": run.budget_text, "space": run.space, "evaluated": f"{row['evaluated']:,}"}
    if best is not None:
        facts |= {f"best, {label}": text for label, text in run.accuracies(best).items()}
        facts |= {f"best, {o.label}": value_text(best, o) for o in run.costs}
    spent = format_seconds(run.supernet_seconds)
    trained = f", by {run.supernet_run}" if run.supernet_run else ""
    return facts | {
        f"hypervolume after {row['equal_evaluations']:,}": (
            f"{row['hypervolume_at_equal_evaluations']:.4f}"
        ),
        "hypervolume at the end": f"{row['hypervolume']:.4f}",
        "supernet": f"{run.supernet_steps:,} steps in {spent}{trained}",
        "search": f"{run.sampler}, seed {run.seed}, {format_seconds(run.search_seconds)}",
        "short list": format_seconds(run.tryout_seconds) if run.short_list else "none",
    }


_TEXT_COLUMNS = (
    *("", "from", "architecture", "gene", "choice"),
    *("class", "most often taken for"),
)

_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 0 auto; max-width: 1120px; padding: 24px 20px 64px; background: #fff;
  color: #222; font: 16px/1.5 {FONT}; }}
h1 {{ font-size: 24px; line-height: 1.25; margin: 8px 0 12px; }}
h2 {{ font-size: 18px; margin: 40px 0 10px; padding-bottom: 4px; border-bottom: 1px solid #ddd; }}
.lead {{ font-size: 19px; margin: 0 0 16px; }}
.lead b {{ white-space: nowrap; }}
.warning {{ border-left: 4px solid #D55E00; padding: 6px 12px; background: #FFF4EC; }}
.note {{ color: #555; font-size: 14px; max-width: 100ch; }}
.plot {{ margin-top: 8px; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; }}
th, td {{ text-align: right; padding: 6px 12px 6px 0; border-bottom: 1px solid #e6e6e6;
  vertical-align: top; white-space: nowrap; font-variant-numeric: tabular-nums; }}
th {{ color: #555; font-weight: 600; border-bottom-color: #999; }}
.text {{ text-align: left; }}
td span {{ white-space: nowrap; }}
td.timed, td.timed span {{ white-space: normal; min-width: 120px; }}
td.text:last-child {{ white-space: normal; min-width: 260px; }}
td.text:last-child span {{ display: inline-block; white-space: normal; }}
dl {{ display: grid; grid-template-columns: 110px 1fr; gap: 6px 20px; margin: 0;
  font-size: 15px; }}
dt {{ color: #555; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.drawn {{ display: grid; grid-template-columns: minmax(0, 560px) minmax(0, 1fr); gap: 8px 40px; }}
.drawn p {{ margin: 4px 0 8px; }}
.drawn svg {{ display: block; width: 100%; max-width: 560px; height: auto; }}
.mistakes {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr));
  gap: 16px; font-size: 14px; }}
.mistakes figure {{ margin: 0; overflow-wrap: anywhere; }}
.mistakes img {{ display: block; width: 100%; max-width: 160px; image-rendering: pixelated; }}
details {{ border-top: 1px solid #ddd; margin-top: 12px; }}
summary {{ cursor: pointer; padding: 8px 0; }}
.legend {{ display: block; font-size: 14px; }}
.legend dt {{ margin-top: 8px; }}
.legend dt code {{ white-space: nowrap; }}
code {{ font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  background: #f4f4f4; padding: 2px 6px; border-radius: 4px; }}
@media (max-width: 900px) {{
  .drawn {{ grid-template-columns: 1fr; }}
}}
@media (max-width: 600px) {{
  body {{ padding: 12px 12px 40px; }}
  dl {{ grid-template-columns: 1fr; gap: 0; }}
  dd {{ margin-bottom: 10px; }}
  td.text:last-child {{ white-space: nowrap; }}
}}
"""


def _page(title: str, body: str, *, reloads: bool = False) -> str:
    """A complete page; its security policy lets it load nothing from anywhere but itself anew."""
    from plotly.offline import get_plotlyjs

    policy = (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:"
    )
    reload = f'<meta http-equiv="refresh" content="{RELOAD_SECONDS}">\n' if reloads else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
{reload}<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
{body}
</body>
</html>
"""
