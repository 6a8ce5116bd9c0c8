"""What the steps stand on: provenance, experiment tracking, the model registry."""
