"""What is done with spaces and supernets: train, evaluate, search, export, retrain, report."""

import os

# Read when torch loads OpenMP. By default its threads spin while they wait for each other, and any
# other process on the machine then slows a training step up to twentyfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
