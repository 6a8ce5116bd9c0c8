"""The steps: one module each, with one plain function `run` that DVC, Kubeflow and the tests call."""
