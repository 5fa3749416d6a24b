"""The search: one driver over one Optuna study, who evaluates, and what comes out on the front.

`nas.search(...)` is the function `nas.api.search`.
"""
