"""Rankings, and the metrics of retrieval."""
