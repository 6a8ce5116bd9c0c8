"""Checks of a data set: its schema, its splits, and how it differs from another one."""
