"""The steps: one module each, with a function `run`."""
