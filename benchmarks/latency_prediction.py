"""How well a latency table predicts networks that it has not seen, beside MACs alone.

    python -m benchmarks.latency_prediction --space base --networks 100 > results/reference/...

Measures a table as `nas profile` does, then draws networks with another seed and times
each, every pass beside one of the same reference network, whose time corrects for the machine's
changing speed (the column `slowdown` says by how much; without it predictions can be no better
than the machine is steady). MACs are a predictor through the best straight line in these very
networks, so their figures flatter them.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch

from nas.latency.conditions import LatencyConditions
from nas.latency.profile import THOROUGH, profile
from nas.latency.reference import ReferenceMeter, blank_network
from nas.latency.table import prediction_error
from nas.utilities.interrupt import StopRequest
from search_space import PRESETS, total_cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", choices=PRESETS, default="base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="where to write the table")
    options = parser.parse_args()
    space = PRESETS[options.space]
    conditions = LatencyConditions(
        device=options.device, image_size=options.image_size, threads=torch.get_num_threads()
    )
    print(conditions)
    start = time.perf_counter()
    meter = ReferenceMeter(space.scaled(0.5), conditions)
    table = profile(
        space,
        conditions,
        THOROUGH,
        seed=0,
        stop=StopRequest(),
        on_progress=lambda share, unstable: None,
        meter=meter,
    )
    print(f"profiled {len(table.segments)} segments in {time.perf_counter() - start:.0f} s")
    if options.keep:
        options.keep.write_text(table.to_json())
    print(f"by the table itself: {table.error}")

    rng = random.Random("held out")
    print("\nhash,macs,predicted_ms,measured_ms,iqr_ms,unstable,slowdown")
    predicted, measured, macs = [], [], []
    for _ in range(options.networks):
        architecture = space.sample(rng)
        latency = meter.measure(blank_network(architecture, conditions))
        predicted.append(table.predict(architecture))
        measured.append(latency.median_ms)
        macs.append(total_cost(architecture, image_size=options.image_size).macs)
        print(
            f"{architecture.hash},{macs[-1]},{predicted[-1]:.3f},{measured[-1]:.3f},"
            f"{latency.iqr_ms:.3f},{latency.unstable},{latency.slowdown:.3f}",
            flush=True,
        )
    slope, intercept = np.polyfit(macs, measured, 1)
    line = [slope * count + intercept for count in macs]
    print(f"\ntable: {prediction_error(predicted, measured)}")
    print(f"MACs:  {prediction_error(line, measured)}")


if __name__ == "__main__":
    main()
