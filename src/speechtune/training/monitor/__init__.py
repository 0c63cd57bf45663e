"""The monitor: what a training run's curves, gradients, weights and transcripts say, and what to do about it."""
