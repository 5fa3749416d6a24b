"""Networks on disk: folders that stand alone, and files for other runtimes."""
