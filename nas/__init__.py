"""What is done with spaces and supernets: train, evaluate, search, export, retrain, report."""

import os

# Read when torch loads GNU OpenMP, whose threads spin while they wait for each other: by default so
# long that any other process on the machine slows a training step up to fiftyfold. This long costs
# a tenth on an idle machine, and a busy one then shares fairly.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
