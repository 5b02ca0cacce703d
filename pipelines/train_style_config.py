"""The keys of `vtray train-style`. Defaults of the network and the steps come from `vtray.style.fast.task`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipelines.config import Fraction, Frozen, JobConfig, OutputConfig
from pipelines.stylize_config import FeaturesConfig, LossConfig
from vtray.images import MAX_PIXELS
from vtray.storage import absolute_uri
from vtray.style.fast.keys import FastEngine
from vtray.style.fast.task import NetworkSpec, StepSpec


def _as_list(value: Any) -> Any:
    """A single value is a list of one."""
    return value if value is None or isinstance(value, list | tuple) else [value]


STRENGTH = 0.2  # of stylize's scale: a network keeps less of the content than pixels that are optimized one by one

Address = Annotated[str, Field(min_length=1)]
Pixels = Annotated[int, Field(ge=32, le=4096)]


class StylesConfig(Frozen):
    """The style images that the network learns."""

    uri: Annotated[tuple[Address, ...], BeforeValidator(_as_list), Field(min_length=1)] = Field(
        description="a style image, a folder of them, or a list of both; local paths or s3://"
    )
    count: int | None = Field(
        None, ge=1, description="how many styles to learn: the first so many by name; default: all there are"
    )
    size_px: Annotated[tuple[Pixels, ...], BeforeValidator(_as_list), Field(min_length=1)] = Field(
        (256,),
        description="longer side of the style images; several for msgnet: the usual one first, more brush sizes",
    )
    strength: Fraction = Field(
        STRENGTH, description="0: the content image, 1: nothing but style; not with loss weights"
    )


class NetworkConfig(Frozen):
    """The network that is trained."""

    engine: FastEngine = Field(
        NetworkSpec.engine, description="feedforward: one style; msgnet: many, chosen by name and blended"
    )
    width: int = Field(NetworkSpec.width, ge=4, le=256, multiple_of=4, description="channels at full size")
    filters: int = Field(
        NetworkSpec.filters, ge=1, le=512, description="msgnet: a quarter of the channels at a quarter of the size"
    )
    num_blocks: int = Field(NetworkSpec.num_blocks, ge=1, le=32, description="msgnet: bottlenecks behind CoMatch")


class CropsConfig(Frozen):
    """What the network sees of the content images."""

    crop_px: int = Field(128, ge=32, le=2048, description="side of the random square crops")
    size_px: int = Field(
        256, ge=32, le=4096, description="what the shorter side of an image is taken as, at least"
    )
    zoom: float = Field(1.5, ge=1, le=8, description="up to so many times size_px, at random")
    unseen: int = Field(4, ge=1, le=64, description="images that are kept out of training, for sheets and losses")


class StepsConfig(Frozen):
    """How the weights are optimized: Adam with a warm-up and a cosine to zero."""

    steps: int = Field(2000, ge=1, description="optimizer steps")
    batch_size: int = Field(4, ge=1, description="crops in a step, of all workers together")
    lr: float = Field(2e-3, gt=0, description="peak learning rate of Adam")
    warmup_steps: int = Field(50, ge=0, description="linear warm-up")
    log_every: int = Field(StepSpec.log_every, ge=1, description="steps between two records of the losses")
    preview_every: int = Field(StepSpec.preview_every, ge=1, description="steps between two sheets")
    checkpoint_every: int = Field(StepSpec.checkpoint_every, ge=1, description="steps that a crash can cost")

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        for name in ("preview_every", "checkpoint_every"):
            if getattr(self, name) % self.log_every:
                raise ValueError(f"{name} {getattr(self, name)}: must be a multiple of log_every {self.log_every}")
        return self


class TrainStyleConfig(JobConfig):
    """`vtray train-style`: the keys of every job, and those of training a fast style network."""

    output: OutputConfig
    style: StylesConfig
    network: NetworkConfig = NetworkConfig()
    crops: CropsConfig = CropsConfig()
    features: FeaturesConfig = FeaturesConfig()
    loss: LossConfig = LossConfig()
    loop: StepsConfig = StepsConfig()
    num_workers: int | None = Field(
        None, ge=0, description="training processes; 0: here, without Ray; default: one per GPU or node"
    )
    threads: int | None = Field(None, ge=1, description="CPUs that a worker computes with; default: its share")
    loaders: int = Field(1, ge=1, description="processes per worker that decode and cut")
    use_gpu: bool | None = Field(None, description="one GPU per worker; default: if the cluster has one")
    max_restarts: int = Field(3, ge=0, description="how often dead workers are replaced")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are quarantined unread")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        if self.network.engine == "feedforward" and len(self.style.size_px) > 1:
            faults.append("style.size_px: feedforward learns one size; give one, or network.engine=msgnet")
        if self.crops.crop_px > self.crops.size_px:
            faults.append(f"crops.crop_px {self.crops.crop_px} is larger than crops.size_px {self.crops.size_px}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def here(self) -> bool:
        """Whether everything is done in this process, without a cluster."""
        return self.num_workers == 0

    def from_anywhere(self) -> dict[str, Any]:
        values = super().from_anywhere()
        values["style"]["uri"] = [absolute_uri(uri) for uri in self.style.uri]
        values["features"]["weights"] = self.features.address
        return values


Device = Literal["cpu", "cuda"]
