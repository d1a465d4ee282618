"""Grids of runs, resumable: every finished run is one row of a CSV."""
