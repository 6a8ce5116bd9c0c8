"""Searches for hyper-parameters, as Optuna keeps them."""
