"""The keys of `vtray finetune`."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.config import Fraction, Frozen, JobConfig, OutputConfig
from vtray.augment.catalogue import AnyOperator
from vtray.augment.recipe import Recipe
from vtray.classify.mixing import AnyMix
from vtray.classify.phases import Strategy
from vtray.images import MAX_PIXELS
from vtray.storage import absolute_uri
from vtray.weights import TORCHVISION

Workers = int | tuple[int, int]
Stage = int | str


class HeadConfig(Frozen):
    """The classifying layer."""

    init: Literal["new", "reuse"] = Field(
        "new", description="new: random rows; reuse: rows of the pretrained classifier by class name"
    )
    aliases: str | None = Field(
        None, description="YAML file: class name -> wnid or ImageNet name, for reuse", min_length=1
    )
    unmatched: Literal["imprint", "random"] = Field(
        "imprint", description="reuse: rows of classes without a match; imprint: from class-mean features"
    )
    dropout: Fraction | None = Field(None, description="before the classifying layer; default: the network's own")


class PreprocessConfig(Frozen):
    """Sizes other than those of the weights."""

    resize_px: int | None = Field(None, ge=8, description="shorter side after resizing; default: the weights' own")
    crop_px: int | None = Field(None, ge=8, description="side of the centre crop; default: the weights' own")


class LoopConfig(Frozen):
    """How the weights are optimized."""

    epochs: int = Field(6, ge=1, description="passes over the training images")
    probe_epochs: int = Field(3, ge=1, description="lp_ft: of them, how many train the head alone, at first")
    batch_size: int = Field(32, ge=1, description="images per step, of all workers together")
    accumulate: int = Field(1, ge=1, description="parts in which a step's batch is computed, to save memory")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum")
    momentum: Fraction = Field(0.9, description="of SGD")
    weight_decay: float = Field(0.01, ge=0, description="of weight matrices; biases and norms have none")
    head_lr_factor: float | None = Field(
        None,
        gt=0,
        description="learning rate of the head relative to the backbone; default: 10 for a new one, else 1",
    )
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="learning-rate factor from each stage to the one before it"
    )
    warmup_epochs: float = Field(0.5, ge=0, description="linear warm-up; a cosine to zero follows")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target given to all classes")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="moving average of the weights, per step; it is what is evaluated and kept"
    )
    mix: tuple[AnyMix, ...] = Field((), description="mixup, cutmix: one of them is drawn for each batch")
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without a better val_top1")
    keep: Literal["best", "last"] = Field("best", description="which epoch's weights become the model")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: rare classes count more")
    sampling: Literal["natural", "balanced"] = Field(
        "natural", description="balanced: equal shares of all classes"
    )


class ModelOutput(OutputConfig):
    """Where the model goes."""

    register_as: str | None = Field(None, description="name in MLflow's model registry; default: not registered")
    alias: str = Field("candidate", description="alias of the registered version", min_length=1)


class CheckConfig(Frozen):
    """The evaluation after training."""

    split: Literal["auto", "test", "val", "none"] = Field(
        "auto", description="which images; auto: test, else val; none: no evaluation"
    )
    robustness: bool = Field(False, description="also under the lighting family and the corruptions, by severity")


class FinetuneConfig(JobConfig):
    """`vtray finetune`: the keys of every job, and those of training a classifier."""

    output: ModelOutput
    backbone: str = Field("resnet18", description="torchvision's name of the network", min_length=1)
    weights: str = Field(
        "torchvision:DEFAULT", description="file (.pth, .safetensors), s3:// address or torchvision:NAME"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-fA-F]{64}$", description="the weights file must have this SHA-256 (hex)"
    )
    head: HeadConfig = HeadConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    strategy: Strategy = Field(
        "full",
        description="full; frozen (freeze says what); linear_probe; lp_ft: the head first, then all; scratch",
    )
    freeze: Stage = Field("none", description="the first n stages, through a named stage, none or all")
    train_stages: tuple[Stage, Stage] | None = Field(
        None, description="surgical window: only the stages from a to b, and the head, are trained"
    )
    lr: float | Literal["find"] = Field(
        1e-4, description="peak learning rate of the backbone; find: measured by a short sweep"
    )
    loop: LoopConfig = LoopConfig()
    operators: tuple[AnyOperator, ...] = Field((), description="augmentation of training images, as in augment")
    recipe: str | None = Field(None, description="a recipe file whose operators are used instead", min_length=1)
    val_fraction: float = Field(
        0.15, gt=0, lt=1, description="of the training images, if the input has no val split; by class"
    )
    cache: Literal["auto", "off"] | int = Field(
        "auto", description="activations of the frozen stages; a number: with so many augmented views"
    )
    cache_uri: str | None = Field(None, description="folder of caches, to share them; default: in the output")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: the faster one, measured once")
    layout: Literal["auto", "nchw", "nhwc"] = Field("auto", description="of memory; auto: measured once")
    num_workers: Workers | None = Field(  # type: ignore[assignment]  # wider than other jobs': a range is elastic
        None,
        description="training processes, or [least, most]; 0: here, without Ray; default: one per GPU or node",
    )
    threads: int | None = Field(None, ge=1, description="CPUs that a worker computes with; default: its share")
    loaders: int = Field(1, ge=1, description="processes per worker that decode and augment")
    use_gpu: bool | None = Field(None, description="one GPU per worker; default: if the cluster has one")
    max_restarts: int = Field(3, ge=0, description="how often dead workers are replaced")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="larger images are quarantined unread")
    check: CheckConfig = CheckConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = [
            *_positive_lr(self.lr),
            *_range(self.num_workers),
            *_cache(self.cache, augmented=bool(self.operators or self.recipe)),
        ]
        if self.operators and self.recipe:
            faults.append("operators and recipe: give one of them")
        if self.strategy == "frozen" and self.freeze == "none" and self.train_stages is None:
            faults.append("strategy frozen: say what with freeze or train_stages")
        if self.strategy == "scratch" and (self.freeze != "none" or self.head.init == "reuse"):
            faults.append("strategy scratch trains all from random weights: leave freeze and head.init alone")
        if self.freeze != "none" and self.train_stages is not None:
            faults.append("freeze and train_stages: give one of them")
        if self.strategy == "lp_ft" and self.loop.probe_epochs >= self.loop.epochs:
            faults.append(
                f"loop.probe_epochs {self.loop.probe_epochs}: must be below loop.epochs {self.loop.epochs}"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def here(self) -> bool:
        """Whether everything is done in this process, without a cluster."""
        return self.num_workers == 0

    @property
    def from_scratch(self) -> bool:
        return self.strategy == "scratch"

    @property
    def weights_address(self) -> str:
        """The weights by a name that holds in any folder."""
        return self.weights if self.weights.startswith(TORCHVISION) else absolute_uri(self.weights)

    def augmentation(self) -> Recipe | None:
        """What happens to training images before preprocessing. Raises: ConfigError for a faulty recipe file."""
        if self.recipe is not None:
            return Recipe.load(self.recipe)
        return Recipe(operators=self.operators) if self.operators else None

    def from_anywhere(self) -> dict[str, Any]:
        values = super().from_anywhere()
        values["weights"] = self.weights_address
        for key in ("recipe", "cache_uri"):
            if values[key]:
                values[key] = absolute_uri(values[key])
        if self.head.aliases:
            values["head"]["aliases"] = absolute_uri(self.head.aliases)
        return values


def _positive_lr(lr: float | str) -> list[str]:
    return [] if isinstance(lr, str) or lr > 0 else [f"lr {lr}: must be above 0, such as 1e-4, or find"]


def _range(workers: Workers | None) -> list[str]:
    if workers is None:
        return []
    least, most = (workers, workers) if isinstance(workers, int) else workers
    if workers == 0 or 1 <= least <= most:
        return []
    return [f"num_workers {workers}: 0, a number from 1 on, or [least, most]"]


def _cache(cache: str | int, *, augmented: bool) -> list[str]:
    if isinstance(cache, str):
        return []
    if cache < 1:
        return [f"cache {cache}: auto, off, or the number of augmented views"]
    return [] if augmented else [f"cache {cache}: views need operators or a recipe"]
