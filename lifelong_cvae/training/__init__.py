"""Learning one task: losses, replay, the jitted train step, and the fits that follow it."""
