"""The network parts of DAGNN and their composition."""
