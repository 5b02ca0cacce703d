"""The keys of `vtray stylize`. Defaults that decide pixels come from `vtray.style.work`, which explains them."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipelines.config import Fraction, Frozen, JobConfig, OutputConfig, UnitsConfig
from vtray.images import MAX_PIXELS
from vtray.images.picture import PictureFormat
from vtray.storage import absolute_uri
from vtray.style.colour import ColourMode
from vtray.style.work import Layout, LossSpec, Optimizer, OptimizeSpec, Precision, Reduction
from vtray.weights import TORCHVISION

NetworkName = Literal["vgg16", "vgg19", "vgg19_normalised", "squeezenet1_0", "squeezenet1_1"]
STARTS = ("content", "noise")


def _as_list(value: Any) -> Any:
    """A single value is a list of one."""
    return value if value is None or isinstance(value, list | tuple) else [value]


def _has_colon_or_path(value: str) -> str:
    """Refuse a misspelt word where an address may stand."""
    if value not in STARTS and not any(sign in value for sign in "./"):
        raise ValueError(f"neither {' nor '.join(STARTS)} nor an image file")
    return value


Address = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
LayerNames = Annotated[tuple[str, ...], Field(min_length=1)]


class StylizedConfig(OutputConfig):
    """Where stylized images go, and as what."""

    format: PictureFormat = Field(
        "same", description="same: as the input's file (PNG where that cannot be written); else all in one format"
    )
    quality: int = Field(95, ge=1, le=100, description="of JPEG and lossy WebP files")


class StylizeUnits(UnitsConfig):
    """How the catalog is cut into units: small ones, because an image takes seconds."""

    max_images: int | None = Field(
        None, ge=1, description="images per unit at most; default: 1 to 64 by the input, engine.batch at least"
    )

    def bound_for(self, num_images: int, *, batch: int) -> int:
        """The bound in force: 8 images from a catalog of 128 on, fewer in small ones, so that many workers share
        them, and more where there would be tens of thousands of units; a power of two, as for every job."""
        if self.max_images:
            return self.max_images
        wanted = max(1, min(8, num_images // 16), min(64, num_images // 8192))
        return max(batch, 1 << (wanted.bit_length() - 1))


class StyleConfig(Frozen):
    """The style images and where they apply."""

    uri: Annotated[tuple[Address, ...], BeforeValidator(_as_list), Field(min_length=1)] = Field(
        description="the style image, or a list of several to blend; local paths or s3://"
    )
    weights: tuple[Positive, ...] | None = Field(
        None, description="share of each style in the blend; default: equal shares"
    )
    masks: Annotated[tuple[Address | None, ...] | None, BeforeValidator(_as_list)] = Field(
        None,
        description="for each style a mask (white: applies) or a folder of masks with the images' names, or null",
    )
    scale: float = Field(1.0, ge=0.1, le=4, description="size of the style image relative to the content image")
    strength: Fraction = Field(
        LossSpec.strength, description="0: the content image, 1: nothing but style; not with loss weights"
    )

    @model_validator(mode="after")
    def _one_for_each_style(self) -> Self:
        for name, values in (("weights", self.weights), ("masks", self.masks)):
            if values is not None and len(values) != len(self.uri):
                raise ValueError(f"{name}: {len(values)} for {len(self.uri)} style images; give one for each")
        return self


class FeaturesConfig(Frozen):
    """The network whose features are compared."""

    network: NetworkName = Field("vgg19", description="whose layers are compared")
    weights: Address = Field(
        "torchvision:DEFAULT", description="file (.pth, .safetensors), s3:// address or torchvision:NAME"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-fA-F]{64}$", description="the weights file must have this SHA-256 (hex)"
    )
    content_layers: LayerNames | None = Field(None, description="such as relu4_2; default: the network's own")
    style_layers: LayerNames | None = Field(None, description="such as relu1_1; default: the network's own")
    precision: Precision | Literal["auto"] = Field(
        "auto", description="fp32, bf16, or auto: the faster one where both agree, measured once"
    )
    layout: Layout | Literal["auto"] = Field("auto", description="of memory; auto: the faster one, measured once")

    @property
    def is_open(self) -> bool:
        """Whether a measurement has to decide something."""
        return "auto" in (self.precision, self.layout)

    @property
    def address(self) -> str:
        """The weights by a name that holds in any folder."""
        return self.weights if self.weights.startswith(TORCHVISION) else absolute_uri(self.weights)


class LossConfig(Frozen):
    """The lecture's three weights; without them `style.strength` decides."""

    content_weight: float | None = Field(LossSpec.content_weight, ge=0, description="w1 of the lecture")
    style_weight: float | None = Field(LossSpec.style_weight, ge=0, description="w2 of the lecture")
    tv_weight: float | None = Field(LossSpec.tv_weight, ge=0, description="w3 of the lecture (total variation)")
    tv_reduction: Reduction = Field(
        LossSpec.tv_reduction, description="total variation as mean or sum over neighbouring pixels"
    )

    @model_validator(mode="after")
    def _all_weights_or_none(self) -> Self:
        weights = (self.content_weight, self.style_weight, self.tv_weight)
        if any(weight is None for weight in weights) != all(weight is None for weight in weights):
            raise ValueError("content_weight, style_weight and tv_weight: give all three or none")
        return self


class EngineConfig(Frozen):
    """The engine `optimize`: an image is changed step by step until its losses are low."""

    optimizer: Optimizer = Field(OptimizeSpec.optimizer, description="box-projected L-BFGS or Adam")
    steps: int = Field(OptimizeSpec.steps, ge=1, description="evaluations at full working size, at most")
    coarse_steps: int = Field(
        OptimizeSpec.coarse_steps, ge=1, description="evaluations at each smaller size of the pyramid, at most"
    )
    start: Annotated[str, AfterValidator(_has_colon_or_path)] = Field(
        OptimizeSpec.start, description="content, noise, or an image file to start from"
    )
    size_px: int = Field(
        OptimizeSpec.size_px,
        ge=32,
        description="longer side that is worked on; larger images get the change enlarged",
    )
    levels: int = Field(OptimizeSpec.levels, ge=1, le=6, description="sizes of the pyramid, each half of the next")
    tolerance: float = Field(
        OptimizeSpec.tolerance, ge=0, lt=1, description="stop when the loss falls by less than this fraction"
    )
    batch: int = Field(
        OptimizeSpec.batch, ge=1, description="images of one size that are optimized together, on a GPU"
    )


class StylizeConfig(JobConfig):
    """`vtray stylize`: the keys of every job, and those of style transfer."""

    output: StylizedConfig
    style: StyleConfig
    features: FeaturesConfig = FeaturesConfig()
    loss: LossConfig = LossConfig()
    engine: EngineConfig = EngineConfig()
    colour: ColourMode = Field("style", description="style: the painting's; luma, histogram: the content's")
    threads: int = Field(1, ge=1, description="CPUs that a worker computes with; decides the last bits of pixels")
    use_gpu: bool | None = Field(None, description="one GPU per worker; default: if there is one")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are quarantined unread")
    units: StylizeUnits = StylizeUnits()

    def from_anywhere(self) -> dict[str, Any]:
        values = super().from_anywhere()
        style, features, engine = values["style"], values["features"], values["engine"]
        style["uri"] = [absolute_uri(uri) for uri in self.style.uri]
        if self.style.masks:
            style["masks"] = [uri and absolute_uri(uri) for uri in self.style.masks]
        features["weights"] = self.features.address
        if self.engine.start not in STARTS:
            engine["start"] = absolute_uri(self.engine.start)
        return values
