"""The conditional VAE of one category: layers, networks, bounds, prior, residual noise. Pure functions."""
