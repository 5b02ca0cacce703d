"""The keys that every job's config shares."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from vtray.storage import absolute_uri
from vtray.tracking import without_password

Fraction = Annotated[float, Field(ge=0, le=1)]


class Frozen(BaseModel):
    """Base of all config sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputConfig(Frozen):
    """What is read."""

    uri: str = Field(description="folder, tar(s), Parquet or list to read; local path or s3://", min_length=1)
    format: Literal["auto", "folder", "webdataset", "parquet", "list"] = Field(
        "auto", description="how to read it; auto looks at the names"
    )
    layout: Literal["auto", "split", "class", "flat"] = Field(
        "auto", description="folders only: split/class/image, class/image or just images"
    )


class OutputConfig(Frozen):
    """Where results go."""

    uri: str = Field(description="folder or s3:// prefix that holds nothing else", min_length=1)


class UnitsConfig(Frozen):
    """How the input is cut into units, the steps in which work is done, committed and resumed."""

    max_images: int | None = Field(
        None,
        ge=1,
        description="images per unit at most; default: 32 to 1024 by the input, fewer with many variants",
    )
    max_bytes: int = Field(64 << 20, ge=1, description="encoded bytes per unit at most")

    def images_for(self, num_images: int, rows_per_image: int) -> int:
        """The bound in force: about 64 units, so that many workers share even a small input, and a unit's rows
        (at most 4096) fit in memory. A power of two, so that an input that grows a little is cut as before."""
        if self.max_images:
            return self.max_images
        wanted = min(1024, max(32, num_images // 64), max(1, 4096 // rows_per_image))
        return 1 << (wanted.bit_length() - 1)


class TrackingConfig(Frozen):
    """The MLflow run."""

    uri: str | None = Field(
        None,
        description="MLflow address; default: MLFLOW_TRACKING_URI, else mlflow.db here; none: no tracking",
    )
    experiment: str = Field("vtray", description="MLflow experiment", min_length=1)


class JobConfig(Frozen):
    """Keys of every job; sections of its own come on top."""

    input: InputConfig
    output: OutputConfig
    seed: int = Field(0, ge=0, lt=2**63, description="seed of everything random")
    max_failed: Fraction = Field(
        0.01, description="fraction of images that may fail before the job counts as failed"
    )
    num_workers: int | None = Field(
        None, ge=1, description="worker processes; default: one per CPU of the cluster"
    )
    cluster: str = Field(
        "auto",
        description="auto: RAY_ADDRESS or a running Ray, else local; local: always an own one; or an address",
    )
    shared_paths: bool = Field(
        False,
        description="local paths are the same on all nodes (such as NFS); several nodes refuse them otherwise",
    )
    units: UnitsConfig = UnitsConfig()
    tracking: TrackingConfig = TrackingConfig()
    run_name: str | None = Field(None, description="name of the MLflow run; default: the job's name")
    replan: bool = Field(
        False,
        description="replace another plan in the output; try again what could not be read",
    )

    def without_secrets(self) -> Self:
        """The config as it may be stored: an MLflow address without its user and password."""
        if self.tracking.uri is None:
            return self
        bare = self.tracking.model_copy(update={"uri": without_password(self.tracking.uri)})
        return self.model_copy(update={"tracking": bare})

    def from_anywhere(self) -> dict[str, Any]:
        """The values that repeat the run from any folder: local paths are absolute, and there are no secrets."""
        values = self.without_secrets().model_dump(mode="json")
        for place in ("input", "output"):
            values[place]["uri"] = absolute_uri(values[place]["uri"])
        return values
