"""The keys that `vtray predict` and `vtray evaluate` share: the model, and how it is computed."""

from typing import Annotated, Any

from pydantic import Field

from pipelines.config import JobConfig
from vtray.images import MAX_PIXELS
from vtray.storage import absolute_uri

Address = Annotated[str, Field(min_length=1)]


class ClassifyConfig(JobConfig):
    """The keys of every job, and those of a job that classifies."""

    model: Address = Field(description="model directory, or the output.uri of a finetune run; local path or s3://")
    batch: int = Field(16, ge=1, description="images that are computed together; decides the last bits of rows")
    threads: int = Field(1, ge=1, description="CPUs that a worker computes with; decides the last bits of rows")
    use_gpu: bool | None = Field(None, description="one GPU per worker; default: if there is one")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are quarantined unread")

    def from_anywhere(self) -> dict[str, Any]:
        return super().from_anywhere() | {"model": absolute_uri(self.model)}
