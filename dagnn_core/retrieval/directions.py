"""The two directions of cross-modal retrieval, by the names that metrics have."""

DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}
ARROWS = {name: words.replace(" to ", " → ") for name, words in DIRECTIONS.items()}
MAP_METRICS = (*(f"map_{direction}" for direction in DIRECTIONS), "map_mean")
"""Mean average precision in both directions, and the mean of the two."""
