"""The page about a log of queries."""
