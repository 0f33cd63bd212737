"""Runs: a directory, its configuration, metrics, figures and report."""
