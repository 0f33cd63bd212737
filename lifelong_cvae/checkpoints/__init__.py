"""Checkpoints of states and of tasks in progress."""

from lifelong_cvae.checkpoints.state import digest, load, save
