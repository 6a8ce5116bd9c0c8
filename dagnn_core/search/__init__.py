"""Search: an index of embeddings, filters, exact nearest neighbours. `faiss` is imported in `nearest` alone."""

EXACT_LIMIT = 2_000_000
"""Items up to which every vector is compared; a query takes about a tenth of a second then, on two cores."""
RECALL = 0.98
"""Recall at 10 that the inverted file of a larger index reaches."""
