"""The steps of a run, in their order: train, search, measure, try out, export."""
