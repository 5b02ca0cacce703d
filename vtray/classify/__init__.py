"""Image classifiers: backbones in stages, heads, freezing, the training loop and what tells how good they are."""
