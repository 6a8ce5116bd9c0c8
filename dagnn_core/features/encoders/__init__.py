"""Encoders: images and texts to feature vectors."""
