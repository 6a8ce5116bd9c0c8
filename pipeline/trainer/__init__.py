"""Training in several pods, as a job of Kubeflow Trainer that the task `train` starts and follows."""
