"""The loss terms and the objective."""
