"""Feature extraction: loading, decoding, embedding in shards, cache."""
