"""The keys of `vtray predict`."""

from pipelines.classify_config import ClassifyConfig


class PredictConfig(ClassifyConfig):
    """`vtray predict`: one row for each image of a catalog, with its class."""
