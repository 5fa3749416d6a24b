"""What a run shows: tables, figures, pages and model cards, from plain tables and plain values.

Nothing here trains, measures or searches. The input is always the same pair: a table of trials with
the columns `nas.search.trials.trial_columns`, one row for each trial that was decided, and the
`RunSummary`, which says what was asked and how it was measured. pandas and plotly are imported only
by the functions that draw; a model card needs neither.
"""
