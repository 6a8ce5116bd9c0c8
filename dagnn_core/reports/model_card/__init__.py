"""The model card: a page for whoever thinks of using a registered model."""
