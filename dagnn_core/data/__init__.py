"""Data sets: reading, writing, importing, rendering."""
