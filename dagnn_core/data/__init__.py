"""Data sets: reading, writing, importing."""
