"""Where a version came from, and where that is now."""
