"""How often the intervals of the effects of choices hold the truth, in simulated searches.

    python -m benchmarks.effects > results/reference/effects/base-2G.txt

Each search is of random architectures within the budget, whose accuracies are a slope times the
logarithm of their MACs, a number for each choice, and noise as of a few hundred images. The numbers
are normal, in a share of the genes, and zero in the others. A row tells the share of intervals of
95 % that hold the true number, of all and of those that are large (more than 1.5 times as large as
usual); what is called clear, a search, and how much of it is in truth no lead.
"""

import argparse
import random
import sys

import numpy as np
import pandas as pd

from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.search.effects import clear, inherited_effects
from nas.search.features import features
from nas.utilities.units import parse_macs
from search_space import PRESETS

POOL = 400
NOISE, SLOPE = 0.025, 0.05
SCENARIOS = ((0.0, 1.0), (0.01, 1.0), (0.02, 1.0), (0.03, 0.2), (0.1, 0.05))
"""How large numbers are, as a standard deviation of accuracies, and in which share of genes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", choices=tuple(PRESETS), default="base")
    parser.add_argument("--budget", default="2GFLOPs")
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--searches", type=int, default=30, help="of each scenario")
    options = parser.parse_args()
    space = PRESETS[options.space]
    constrained = ConstrainedSpace(
        space=space,
        limits=Limits(macs=parse_macs(options.budget)),
        image_size=224,
        num_classes=10,
    )
    rng, draw = np.random.default_rng(0), random.Random(0)
    pool = {a.hash: a for a in (constrained.sample(draw) for _ in range(POOL))}
    macs = {hash: constrained.cost(architecture).macs for hash, architecture in pool.items()}
    taken = {hash: features(space, space.equivalents(a)) for hash, a in pool.items()}
    print("deviation,genes,of_all,of_large,clear_a_search,no_lead")
    for deviation, share in SCENARIOS:
        held, large, told = [], [], []
        for _ in range(options.searches):
            truth = {}
            for gene, choices in space.genes.items():
                numbers = rng.normal(0, deviation, len(choices)) * (rng.uniform() < share)
                truth[gene] = dict(zip(choices, numbers - numbers.mean(), strict=True))
            numbers = np.concatenate([[*of.values()] for of in truth.values()])
            hashes = draw.sample(sorted(pool), options.trials)
            rows = pd.DataFrame({"number": range(len(hashes)), "hash": hashes})
            rows["state"], rows["macs"] = "evaluated", [macs[hash] for hash in hashes]
            gained = np.array([taken[hash] for hash in hashes]) @ numbers
            noise = rng.normal(0, NOISE, len(hashes))
            rows["accuracy"] = 0.4 + SLOPE * np.log(rows["macs"] / 1e9) + gained + noise
            effects = inherited_effects(rows, pool, space)
            for effect in effects:
                of = truth[effect.gene]
                mean = np.mean([of[each.choice] for each in effect.ranked]) if effect.lead else 0
                for each in effect.ranked:
                    assert each.gain is not None
                    low, high = each.gain.interval
                    right = of[each.choice] - mean
                    held.append(low <= right <= high)
                    large += [held[-1]] if 0 < 1.5 * deviation < abs(right) else []
            for effect in clear(effects):
                best, *_, worst = effect.ranked
                of = truth[effect.gene]
                told.append(of[best.choice] <= of[worst.choice])
        print(
            f"{deviation},{share},{np.mean(held):.3f},"
            f"{f'{np.mean(large):.3f}' if large else ''},{len(told) / options.searches:.2f},"
            f"{f'{np.mean(told):.3f}' if told else ''}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
