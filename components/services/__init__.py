"""What the steps stand on: S3 and DVC, provenance, experiment tracking, the model registry."""
