"""Measures: of recognition over time, of generation."""
