"""Test processes side by side share the cores: contending for them, they take ten times as long."""

import os

if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Read once, when torch is loaded.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(processes)))

# Ray's workers would yield to whatever else runs, and the tests wait for them.
os.environ.setdefault("RAY_worker_niceness", "0")
