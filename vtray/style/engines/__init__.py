"""Engines: ways from a content image and a style to a stylized image."""
