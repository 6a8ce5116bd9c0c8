"""Pages for people: evaluation report, data card, model card."""
