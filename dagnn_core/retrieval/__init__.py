"""Ranking, retrieval metrics, baselines."""
