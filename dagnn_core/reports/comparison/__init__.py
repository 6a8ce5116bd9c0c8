"""Two or more models on the same test split, from their reports."""
