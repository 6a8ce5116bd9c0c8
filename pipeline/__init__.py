"""Kubeflow composition of the steps, and the command line."""
