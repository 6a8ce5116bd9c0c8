"""The training loop, checkpoints, seeds."""
