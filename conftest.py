"""How the tests run: which cases of the large tables, and beside what."""

import os
from collections import Counter

import pytest

if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Read once, when torch is loaded. Test processes that contend for cores take ten times as long.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(processes)))

# Ray's workers would yield to whatever else runs, and the tests wait for them.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--exhaustive`: see the markers `sampled` and `exhaustive`."""
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="run every case of the tests that are marked as `sampled`, and those so marked",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take a sample of the cases of `sampled` tests, and none that is marked as `exhaustive`."""
    if config.getoption("--exhaustive"):
        return
    seen: Counter[str] = Counter()
    kept, left = [], []
    for item in items:
        if item.get_closest_marker("exhaustive") is not None:
            left.append(item)
            continue
        test, _, _ = item.nodeid.partition("[")
        mark = item.get_closest_marker("sampled")
        takes_part = mark is None or seen[test] % mark.args[0] == 0
        seen[test] += 1
        (kept if takes_part else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept
