"""The keys of `vtray stylize`. Defaults that decide pixels come from `vtray.style.work`, which explains them."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipelines.config import Fraction, Frozen, JobConfig, OutputConfig, UnitsConfig
from pipelines.stylize_engines import Address, EngineConfig, OptimizeConfig, from_anywhere
from vtray.images import MAX_PIXELS
from vtray.images.picture import PictureFormat
from vtray.storage import absolute_uri
from vtray.style.colour import ColourMode
from vtray.style.work import Layout, LossSpec, Precision, Reduction
from vtray.weights import TORCHVISION

NetworkName = Literal["vgg16", "vgg19", "vgg19_normalised", "squeezenet1_0", "squeezenet1_1"]


def _as_list(value: Any) -> Any:
    """A single value is a list of one."""
    return value if value is None or isinstance(value, list | tuple) else [value]


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

    uri: Annotated[tuple[Address, ...] | None, BeforeValidator(_as_list)] = Field(
        None, min_length=1, description="the style image, or a list of several to blend; local paths or s3://"
    )
    name: Annotated[tuple[Address, ...] | None, BeforeValidator(_as_list)] = Field(
        None, min_length=1, description="engine msgnet: a style of the model, or a list of several to blend"
    )
    weights: tuple[Positive, ...] | None = Field(
        None, description="share of each style in the blend; default: equal shares"
    )
    masks: Annotated[tuple[Address | None, ...] | None, BeforeValidator(_as_list)] = Field(
        None,
        description="for each style a mask (white: applies) or a folder of masks with the images' names, or null",
    )
    scale: float = Field(1.0, ge=0.1, le=4, description="size of the style image relative to the content image")
    strength: Fraction | None = Field(
        None,
        description="0: the content image, 1: nothing but style; not with loss weights; default: by the engine",
    )

    @model_validator(mode="after")
    def _one_for_each_style(self) -> Self:
        for name, values in (("weights", self.weights), ("masks", self.masks)):
            if values is not None and len(values) != len(self.chosen):
                styles = "styles" if self.name else "style images"
                raise ValueError(f"{name}: {len(values)} for {len(self.chosen)} {styles}; give one for each")
        return self

    @property
    def chosen(self) -> tuple[str, ...]:
        """The addresses or names of the styles."""
        return self.uri or self.name or ()


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


class StylizeConfig(JobConfig):
    """`vtray stylize`: the keys of every job, and those of style transfer."""

    output: StylizedConfig
    style: StyleConfig = StyleConfig()
    features: FeaturesConfig = FeaturesConfig()
    loss: LossConfig = LossConfig()
    engine: EngineConfig = OptimizeConfig()
    colour: ColourMode = Field("style", description="style: the painting's; luma, histogram: the content's")
    threads: int = Field(1, ge=1, description="CPUs that a worker computes with; decides the last bits of pixels")
    use_gpu: bool | None = Field(None, description="one GPU per worker; default: if there is one")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are quarantined unread")
    units: StylizeUnits = StylizeUnits()

    @model_validator(mode="after")
    def _styles_that_the_engine_takes(self) -> Self:
        engine, style = self.engine.name, self.style
        if style.name and engine != "msgnet":
            raise ValueError(f"style.name: engine {engine} knows no names; only msgnet does")
        if style.uri and engine == "feedforward":
            raise ValueError("style.uri: engine feedforward has its style inside engine.model; leave it out")
        if style.uri and style.name:
            raise ValueError("style.uri and style.name: give one of them")
        if not style.chosen and engine != "feedforward":
            key, what = ("name", "a style of the model") if engine == "msgnet" else ("uri", "the style image")
            raise ValueError(f"style.{key}: required, but not given ({what} for engine {engine})")
        if style.masks and engine != "optimize":
            raise ValueError(f"style.masks: engine {engine} paints the whole image; only optimize takes masks")
        return self

    @model_validator(mode="after")
    def _runtime_that_is_there(self) -> Self:
        if getattr(self.engine, "runtime", "torch") == "onnxruntime" and self.use_gpu:
            raise ValueError("engine.runtime: onnxruntime runs on CPUs here; leave use_gpu out")
        return self

    def from_anywhere(self) -> dict[str, Any]:
        values = super().from_anywhere()
        style, features = values["style"], values["features"]
        style["uri"] = self.style.uri and [absolute_uri(uri) for uri in self.style.uri]
        if self.style.masks:
            style["masks"] = [uri and absolute_uri(uri) for uri in self.style.masks]
        features["weights"] = self.features.address
        values["engine"] = from_anywhere(values["engine"])
        return values
