"""Self-contained pages: template, style and thumbnails."""
