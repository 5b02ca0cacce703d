"""The keys of the engines of `vtray stylize`, one model for each; defaults come from `vtray.style.work`."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipelines.config import Frozen
from vtray.storage import absolute_uri
from vtray.style.work import FastName, FastSpec, Layout, Optimizer, OptimizeSpec, Precision, Runtime, Tiling

STARTS = ("content", "noise")
Address = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str | None, Field(pattern="^[0-9a-fA-F]{64}$")]


def _is_start(value: str) -> str:
    """Refuse a misspelt word where an address may stand."""
    if value not in STARTS and not any(sign in value for sign in "./"):
        raise ValueError(f"neither {' nor '.join(STARTS)} nor an image file")
    return value


def _named(value: Any) -> Any:
    """`optimize` where no name is given."""
    return {"name": "optimize", **value} if isinstance(value, dict) else value


class OptimizeConfig(Frozen):
    """The engine `optimize`: an image is changed step by step until its losses are low."""

    name: Literal["optimize"] = Field("optimize", description="which engine; see docs/stylize.md")
    optimizer: Optimizer = Field(OptimizeSpec.optimizer, description="box-projected L-BFGS or Adam")
    steps: int = Field(OptimizeSpec.steps, ge=1, description="evaluations at full working size, at most")
    coarse_steps: int = Field(
        OptimizeSpec.coarse_steps, ge=1, description="evaluations at each smaller size of the pyramid, at most"
    )
    start: Annotated[str, AfterValidator(_is_start)] = Field(
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


class FastConfig(Frozen):
    """What the engines of one pass share."""

    name: FastName = Field(description="which engine; see docs/stylize.md")
    precision: Precision | Literal["auto"] = Field(
        "auto", description="fp32, bf16, or auto: the faster one where both look the same, measured once"
    )
    layout: Layout | Literal["auto"] = Field("auto", description="of memory; auto: the faster one, measured once")
    tiling: Tiling = Field(
        FastSpec.tiling,
        description="images above memory_mb in tiles: exact (as if whole), fast (statistics of a small copy), off",
    )
    memory_mb: int = Field(FastSpec.memory_mb, ge=64, description="an image that needs more is painted in tiles")
    batch: int = Field(FastSpec.batch, ge=1, description="images of one size that are painted together")
    runtime: Runtime = Field(FastSpec.runtime, description="torch, or onnxruntime (extra onnx) in fp32 on a CPU")

    @model_validator(mode="after")
    def _runtime_has_the_precision(self) -> Self:
        if self.runtime == "onnxruntime" and self.precision == "bf16":
            raise ValueError("runtime: onnxruntime paints in fp32; leave precision out")
        return self

    @property
    def is_open(self) -> bool:
        """Whether a measurement has to decide something."""
        return self.runtime == "torch" and "auto" in (self.precision, self.layout)

    @property
    def files(self) -> dict[str, tuple[str, str | None]]:
        """Part of the network -> its address and the SHA-256 that it must have, if one is given."""
        raise NotImplementedError


class TrainedConfig(FastConfig):
    """A model that `vtray train-style` made, or a published file of the same architecture."""

    model: Address = Field(description="model directory, output of train-style, or weights file; local or s3://")
    sha256: Sha256 = Field(None, description="the weights file must have this SHA-256 (hex)")

    @property
    def files(self) -> dict[str, tuple[str, str | None]]:
        return {"model": (self.model, self.sha256)}


class FeedforwardConfig(TrainedConfig):
    """The engine `feedforward`: a network that was trained for one style."""

    name: Literal["feedforward"]


class MsgnetConfig(TrainedConfig):
    """The engine `msgnet`: one network that knows many styles by name."""

    name: Literal["msgnet"]
    style_px: int = Field(FastSpec.style_px, ge=32, description="longer side at which a style image is encoded")


class AdainConfig(FastConfig):
    """The engine `adain`: any style image, by features with the style's moments."""

    name: Literal["adain"]
    encoder: Address = Field(description="weights of the normalised VGG-19; local path or s3://")
    decoder: Address = Field(description="weights of its decoder, which says where the encoder is cut")
    encoder_sha256: Sha256 = Field(None, description="the encoder's file must have this SHA-256 (hex)")
    decoder_sha256: Sha256 = Field(None, description="the decoder's file must have this SHA-256 (hex)")
    style_px: int = Field(FastSpec.style_px, ge=32, description="longer side at which a style image is encoded")

    @property
    def files(self) -> dict[str, tuple[str, str | None]]:
        return {"encoder": (self.encoder, self.encoder_sha256), "decoder": (self.decoder, self.decoder_sha256)}


class MicroastConfig(FastConfig):
    """The engine `microast`: any style image, by a network of half a million weights."""

    name: Literal["microast"]
    model: Address = Field(description="folder with the four published files, local or s3://")
    style_px: int = Field(FastSpec.style_px, ge=32, description="longer side at which a style image is encoded")


EngineConfig = Annotated[
    Annotated[
        OptimizeConfig | FeedforwardConfig | MsgnetConfig | AdainConfig | MicroastConfig,
        Field(discriminator="name"),
    ],
    BeforeValidator(_named),
]
PLACES = ("model", "encoder", "decoder")  # keys that hold addresses of weights


def from_anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """An engine's values with addresses that hold in any folder."""
    changed = {key: absolute_uri(values[key]) for key in PLACES if key in values}
    if values.get("start", STARTS[0]) not in STARTS:
        changed["start"] = absolute_uri(values["start"])
    return values | changed
