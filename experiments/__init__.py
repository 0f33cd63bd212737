"""Launchers: flags in, one library call, files out. Run them as `python -m experiments.NAME`."""
