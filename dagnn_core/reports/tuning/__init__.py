"""What a search found: records, tables, and a page."""
