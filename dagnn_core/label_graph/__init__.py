"""The label graph: counts, adjacency, node vectors, an image."""
