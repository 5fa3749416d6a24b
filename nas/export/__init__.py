"""Networks on disk: folders that stand alone, and files for other runtimes.

`nas.export(...)` is the function `nas.api.export`.
"""
