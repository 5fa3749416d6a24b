"""How long networks take: conditions, runtimes, measuring, tables that predict, profiling."""
