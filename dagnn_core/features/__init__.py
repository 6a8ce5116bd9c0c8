"""Pictures, sentences and labels as vectors."""
