"""The label graph: counts, adjacency, node vectors, a picture."""
