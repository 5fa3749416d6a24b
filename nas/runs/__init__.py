"""Runs: the configuration, the folder, and the way from one to exported networks."""
