"""From raw data to the dataset artifact: checks, quarantine, splits, shards."""
