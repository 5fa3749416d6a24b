"""The parts of a run, in their order: train, search, measure, export.

Each is passed over where its result is in the folder already.
"""
