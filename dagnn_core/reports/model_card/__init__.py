"""The model card: a page for those who consider using a registered model."""
