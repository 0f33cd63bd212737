"""Metrics of recognition over tasks, of imagined images, and of novelty detection."""
