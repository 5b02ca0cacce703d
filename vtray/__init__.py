"""vtray: image augmentation, fine-tuning and style transfer as batch jobs."""

__version__ = "0.1.0"
