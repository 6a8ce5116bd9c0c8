"""Search: an index of embeddings, filters, exact nearest neighbours. `faiss` is imported in `nearest` alone."""
