"""Images, texts and labels as vectors."""
