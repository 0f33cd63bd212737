"""Studies of this repository: grids of runs, tables, documents. Not installed."""
