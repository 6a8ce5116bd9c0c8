"""What the log of queries says: drift from the data that a model was trained on, and two models side by side."""
