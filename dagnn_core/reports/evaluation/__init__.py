"""Curves, tables and the HTML report."""
