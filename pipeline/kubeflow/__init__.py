"""A Kubeflow Pipelines server: client, errors, credentials."""
