"""Whether what a search reports as within its limits on latency is so when measured again.

    python -m benchmarks.latency_again results/RUN ... > results/reference/...

Measures the exported networks of runs, from their folders, in this fresh process, at the speed of
the run's latency table as the run did. A network counts as within the limit if its median is, or
exceeds it by no more than the wider of the two interquartile ranges. `slowdown` is the time of the
table's reference network, relative to the table's. Exits with status 1 if one does not.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from nas.latency.reference import latency_meter
from nas.latency.table import LatencyTable
from nas.objectives.objective import LatencyColumns
from nas.runs.folder import RunFolder
from nas.utilities.devices import is_here
from supernet import load_exported


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    over = networks = 0
    print(
        "run,network,device,limit_ms,predicted_ms,measured_ms,iqr_ms,slowdown,"
        "again_ms,again_iqr_ms,again_pace,within"
    )
    for path in options.runs:
        folder = RunFolder(path)
        front = pd.read_csv(path / "pareto.csv")
        front = front.sort_values(["accuracy", "macs"], ascending=[False, True])
        for device, limit in folder.config.latency_ms.items():
            if not is_here(device):
                continue
            columns = LatencyColumns(device)
            meter = latency_meter(LatencyTable.load(folder.latency_table(device)))
            for number, (_, row) in enumerate(front.iterrows(), start=1):
                network, _ = load_exported(path / "front" / str(number))
                again = meter(network)
                within = again.median_ms <= limit + max(float(row[columns.iqr]), again.iqr_ms)
                networks += 1
                over += not within
                print(
                    f"{path.name},{network.architecture.hash},{device},{limit:g},"
                    f"{row[columns.predicted]:.2f},{row[columns.measured]:.2f},"
                    f"{row[columns.iqr]:.2f},{row[columns.slowdown]:.3f},{again.median_ms:.2f},"
                    f"{again.iqr_ms:.2f},{again.slowdown:.3f},{within}",
                    flush=True,
                )
    print(f"\n{networks - over} of {networks} are within their limits when measured again")
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
