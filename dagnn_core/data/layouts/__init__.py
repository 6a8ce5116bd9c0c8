"""Layouts of raw data: one module opens each."""
