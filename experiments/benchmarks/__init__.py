"""Benchmarks: time, memory and floating-point operations, and agreement between devices."""
