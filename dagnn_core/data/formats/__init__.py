"""File formats of raw data: tables, matrices, JSON streams, archives of images."""
