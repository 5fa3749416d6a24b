"""The model card of an exported architecture: the README.md of its folder."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.objectives.objective import LatencyColumns, Objective
from nas.report.run_summary import RunSummary, latency_text, percent
from nas.utilities.units import scaled_side

if TYPE_CHECKING:
    from search_space import PublishedDesign
    from supernet import ExportedNetwork

IMAGENET_CLASSES = 1000
"""Of ImageNet, on which the papers measure."""

WORST = 5
"""So many classes, the least accurate ones, are told of in a card."""


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """What a model card says of one exported architecture, beyond the summary of its run.

    `name` is its folder within the run, as in `best`; `trial` its row in the table of what is
    judged (`nas.search.front.judged`); `stages` holds one row per stage, all with the same keys;
    `words` says what the words of its summary mean, as `nas.report.legend.legend`; `mean` and `std`
    are per channel, for values between 0 and 1; `crop` is the share of the shorter side that the
    central crop of evaluation keeps.
    """

    name: str
    trial: Mapping[Any, Any]
    stages: Sequence[Mapping[str, object]]
    words: Sequence[tuple[Sequence[str], str]]
    class_names: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    crop: float


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """How well the images of one class are told from the others.

    Attributes:
        name: Of the class.
        images: How many there are of it.
        accuracy: Share of them that were taken for it, 0 to 1; None where there are none.
        mistaken_for: The class that most of the others were taken for; None where none was.
    """

    name: str
    images: int
    accuracy: float | None
    mistaken_for: str | None


def class_accuracies(
    confusion: Sequence[Sequence[int]], names: Sequence[str]
) -> list[ClassAccuracy]:
    """What a confusion matrix says of each class, in the order of the classes.

    Args:
        confusion: How many images of each class (rows) were taken for each class (columns).
        names: Of the classes.
    """
    classes = []
    for label, (name, counts) in enumerate(zip(names, confusion, strict=True)):
        images = sum(counts)
        wrong = [count if other != label else 0 for other, count in enumerate(counts)]
        classes.append(
            ClassAccuracy(
                name=name,
                images=images,
                accuracy=counts[label] / images if images else None,
                mistaken_for=names[wrong.index(max(wrong))] if any(wrong) else None,
            )
        )
    return classes


def model_card(model: ModelSummary, run: RunSummary) -> str:
    """Markdown that lets a stranger judge and load the architecture beside it."""
    size, trial = run.proxy_size, model.trial
    return f"""\
# {_inline(run.data)}: {_inline(model.name)}

An image classifier with {run.num_classes} classes, found by architecture search in the space
{_inline(run.space)} under the budget {run.budget_text}. Trial {trial["number"]} of the run,
architecture `{trial["hash"]}`:

    {_one_line(str(trial["summary"]))}

## Accuracy

{run.accuracy_with_error(trial["accuracy"])} on the search split: {run.search_images:,} images of
{_inline(run.data)} at {size} px; {run.chance_text}; ± is one standard error.

{_weights(trial, run)} The search chose this architecture by these very images, so the figure
flatters it a little; the test split was not touched. `nas retrain` trains the
architecture alone, from nothing, and measures it there.

## Cost

{_table([_cost_row(objective, trial, run) for objective in run.costs])}

{_architecture(model.stages, model.words)}

The whole of it is in `architecture.json`.

{_use(size, model.class_names, model.mean, model.std, model.crop)}
## Made by

    {_one_line(run.command)}

Sampler {_inline(run.sampler)}, seed {run.seed}, device {_inline(run.device)}.
"""


def _weights(trial: Mapping[Any, Any], run: RunSummary) -> str:
    """Where the weights come from."""
    trained = f", trained by {_inline(run.supernet_run)}" if run.supernet_run else ""
    inherited = f"inherited from the supernet ({run.supernet_steps:,} steps{trained})"
    if math.isnan(trial["tried"]):
        return f"The weights are {inherited} and were **not retrained**."
    told = (
        f"The weights were {inherited} and then trained alone for {int(trial['tried_steps']):,} "
        f"steps; inherited, they gave {percent(trial['inherited'])}."
    )
    if math.isnan(trial["scratch"]):
        return told
    return (
        f"{told} Other weights, fresh ones, gave {percent(trial['scratch'])} after "
        f"{int(trial['scratch_steps']):,} steps; by that it was ranked."
    )


def retrained_card(
    *,
    name: str,
    data: str,
    summary: str,
    hash: str,
    costs: Sequence[tuple[str, str]],
    proxy_size: int,
    before: tuple[str, float],
    retrained: float,
    test_images: int,
    classes: Sequence[ClassAccuracy],
    recipe: Mapping[str, object],
    stages: Sequence[Mapping[str, object]],
    words: Sequence[tuple[Sequence[str], str]],
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    crop: float,
) -> str:
    """Markdown for an architecture that was trained alone and measured on the test split.

    `before` says with what other weights it was measured, too, and their accuracy; `costs` are
    what is counted and its amount; accuracies are between 0 and 1.
    """
    figures = [
        {"": "accuracy after training alone", "value": percent(retrained)},
        {"": f"accuracy with {before[0]}", "value": percent(before[1])},
        *({"": what, "value": text} for what, text in costs),
    ]
    return f"""\
# {_inline(data)}: {_inline(name)}

An image classifier with {len(class_names)} classes, architecture `{hash}`:

    {_one_line(summary)}

Accuracies are of the test split, {test_images:,} images at {proxy_size} px that neither training
nor search has seen.

{_table(figures)}

## Least accurate classes

{_table(_worst(classes))}

All classes are in `classes.csv`, what each was taken for in `confusion.csv`, and the losses of the
training in `curve.csv`.

{_architecture(stages, words)}

## Recipe

{_table([{"setting": key, "value": value} for key, value in recipe.items()])}

{_use(proxy_size, class_names, mean, std, crop)}"""


def _architecture(
    stages: Sequence[Mapping[str, object]], words: Sequence[tuple[Sequence[str], str]]
) -> str:
    """The picture beside the card, the stages, and what the words mean."""
    meanings = [{"word": ", ".join(texts), "what it means": meaning} for texts, meaning in words]
    return f"""\
## Architecture

![From the image down to the class scores](architecture.svg)

{_table(stages)}

{_table(meanings)}"""


def _worst(classes: Sequence[ClassAccuracy]) -> list[dict[str, object]]:
    """The least accurate classes as rows, the worst first."""
    measured = [(known.accuracy, known) for known in classes if known.accuracy is not None]
    return [
        {
            "class": known.name,
            "accuracy": percent(accuracy),
            "test images": f"{known.images:,}",
            "most often taken for": known.mistaken_for or "–",
        }
        for accuracy, known in sorted(measured, key=lambda pair: pair[0])[:WORST]
    ]


def converted_card(
    design: PublishedDesign,
    *,
    file: str,
    digest: str,
    params: int,
    macs: int,
    stages: Sequence[Mapping[str, object]],
    words: Sequence[tuple[Sequence[str], str]],
    about: ExportedNetwork,
) -> str:
    """Markdown for the network of a published design with its authors' weights.

    Args:
        design: Which.
        file: The name of the checkpoint that they come from.
        digest: Of the weights.
        params: Parameters of the network.
        macs: Its multiply-adds for one image.
        stages: The stages, a row each.
        words: What the words of its summary mean.
        about: What the weights were trained for.
    """
    figures = [
        {"": "parameters", "value": f"{params:,}"},
        {"": f"multiply-adds at {about.image_size} px", "value": f"{macs:,}"},
    ]
    if design.paper_top1 is not None and about.num_classes == IMAGENET_CLASSES:
        told = f"{design.paper_top1:g} %, as printed; not measured here"
        figures.append({"": "ImageNet top-1 accuracy", "value": told})
    return f"""\
# {_inline(design.name)}

An image classifier with {about.num_classes} classes, of {design.paper}, architecture
`{design.architecture.hash}`. The weights (digest `{digest}`) are those of the checkpoint
{_inline(file)}, converted to this network's names and layouts; nothing was trained.

{_table(figures)}

{_architecture(stages, words)}

{_use(about.image_size, about.class_names, about.mean, about.std, about.crop_pct)}"""


def _cost_row(objective: Objective, trial: Mapping[Any, Any], run: RunSummary) -> dict[str, object]:
    if objective.device is not None:
        latency = latency_text(trial, LatencyColumns(objective.device))
        how = run.latency[objective.device].conditions
        return {"": objective.label, "value": latency, "how": how}
    value = trial[objective.name]
    text = f"{objective.exact(value)} ({objective.cell(value)})"
    return {"": objective.label, "value": text, "how": run.counted(objective)}


def _use(
    size: int,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    crop: float,
) -> str:
    """How to load the folder's weights, and what goes in and comes out."""
    return f"""\
## Use

In this folder:

```python
import supernet  # registers "subnet" with timm
import timm

model = timm.create_model("subnet", architecture="architecture.json", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
labels = model.pretrained_cfg["label_names"]
```

The transform makes of an RGB image what the accuracy was measured on: its shorter side is resized
to {scaled_side(size, crop)} px (bicubic), and the middle {size} × {size} are kept (crop_pct
{crop:g}), with values between 0 and 1, less the mean {_triple(mean)}, divided by the
standard deviation {_triple(std)}.

The outputs are logits, in this order: {", ".join(_inline(name) for name in class_names)}.
"""


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    """A markdown table; the keys of the first row are its head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(_inline(cell) for cell in line)} |" for line in lines)


def _inline(text: str) -> str:
    """One line of text that markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(_one_line(text), quote=False))


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _triple(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
