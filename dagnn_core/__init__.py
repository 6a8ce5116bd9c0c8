"""The DAGNN library: artifacts, data, features, label graph, networks, losses, training, retrieval."""
