"""Images, sentences and labels as vectors."""
