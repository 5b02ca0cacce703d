"""Fast networks: trained once for a style, or for many, and then one pass for each image."""
