"""Copies of an index in vector stores: PostgreSQL with pgvector, Qdrant."""
