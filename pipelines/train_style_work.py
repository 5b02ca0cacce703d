"""From the keys of a train-style run to everything definite: styles read, images listed, layers named."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath

from pipelines import batch
from pipelines.stylize_config import FeaturesConfig
from pipelines.stylize_styles import read_style
from pipelines.train_style_config import Device, TrainStyleConfig
from vtray.classify.sampling import Sampling
from vtray.errors import ConfigError, ImageError, InputError
from vtray.images import decode
from vtray.manifest import Json, Plan
from vtray.seeding import digest_of
from vtray.sources import ImageRef, Source, Unit, open_source, read_unit
from vtray.steps.load_crops import LoadCrops
from vtray.steps.results import encoded_of
from vtray.storage import absolute_uri, open_storage
from vtray.style.fast.crops import CropMaker
from vtray.style.fast.task import NetworkSpec, StepSpec
from vtray.style.features import FeatureExtractor, depth_of
from vtray.style.networks import network_named
from vtray.style.pixels import resized
from vtray.style.work import FeatureSpec, Image, LossSpec, StyleImage
from vtray.weights import load_weights

JOB = "train-style"
UNIT = "model"  # the only unit of the output's books
LIBRARIES = (*batch.CODECS, "torch")
UNSEEN_SHARE = 4  # at most one image of so many is kept out of training


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainStyleWork:
    """A training that is ready to begin; nothing is started or written."""

    config: TrainStyleConfig
    source: Source
    styles: tuple[StyleImage, ...]
    features: FeatureSpec
    device: Device

    @classmethod
    def of(cls, config: TrainStyleConfig, *, device: Device) -> "TrainStyleWork":
        """List the input, read styles and weights, check all that can be checked before a cluster starts.

        Raises: InputError, ConfigError, WeightsError, StorageError.
        """
        styles = read_styles(config)
        features = features_of(config.features)
        work = cls(config=config, source=batch.open_input(config), styles=styles, features=features, device=device)
        assert work.train_refs  # or an InputError before anything is written
        return work

    @property
    def output_uri(self) -> str:
        return absolute_uri(self.config.output.uri)

    @property
    def network(self) -> NetworkSpec:
        return NetworkSpec(**self.config.network.model_dump())

    @property
    def loss(self) -> LossSpec:
        return LossSpec(strength=self.config.style.strength, **self.config.loss.model_dump())

    @property
    def steps(self) -> StepSpec:
        return StepSpec(**self.config.loop.model_dump())

    @cached_property
    def unseen(self) -> dict[str, Image]:
        """The images that are kept out of training, by name and at its size: always the same ones, at least one.

        Broken ones are passed over, and met in training. Raises: InputError if none can be read; StorageError.
        """
        refs = self.source.refs
        wanted = min(self.config.crops.unseen, max(1, len(refs) // UNSEEN_SHARE))
        drawn = sorted(refs, key=lambda ref: digest_of("unseen", self.config.seed, ref.image_id))
        readable = ((ref, image) for ref in drawn if (image := self._read(ref)) is not None)
        side_px = max(self._least_px, self.config.crops.size_px)
        found = {ref.image_id: _with_shorter_side(image, side_px) for ref, image in islice(readable, wanted)}
        if not found:
            raise InputError(f"{self.source.uri}: none of the {len(refs)} images can be read; check input.uri")
        return {name: found[name] for name in sorted(found)}

    def _read(self, ref: ImageRef) -> Image | None:
        """The decoded image; None if it is broken."""
        (source,) = read_unit(Unit(unit_id="unseen", format=self.source.format, refs=(ref,)))
        try:
            return decode(encoded_of(source), max_pixels=self.config.max_pixels).image
        except ImageError:
            return None

    @cached_property
    def _least_px(self) -> int:
        return FeatureExtractor.load(self.features).min_side_px

    @cached_property
    def train_refs(self) -> tuple[ImageRef, ...]:
        """The images that are trained on. Raises: InputError if none is left, and as `unseen`."""
        left = tuple(ref for ref in self.source.refs if ref.image_id not in self.unseen)
        if not left:
            raise InputError(
                f"{self.source.uri}: one image is too few, as one is kept out of training; add content images"
            )
        return left

    @property
    def sampling(self) -> Sampling:
        """Which image is in which batch."""
        loop = self.config.loop
        return Sampling(num_images=len(self.train_refs), batch_size=loop.batch_size, seed=self.config.seed)

    @property
    def load(self) -> LoadCrops:
        config = self.config
        maker = CropMaker(
            crop_px=config.crops.crop_px,
            size_px=config.crops.size_px,
            zoom=config.crops.zoom,
            seed=config.seed,
            max_pixels=config.max_pixels,
        )
        return LoadCrops(refs=self.train_refs, format=self.source.format, maker=maker)

    def plan(self) -> Plan:
        """What decides the weights goes into `work`; workers and tracking do not."""
        config, features = self.config, self.features
        return Plan(
            job=JOB,
            work={
                "network": config.network.model_dump(mode="json"),
                "styles": [{"name": style.name, "sha256": style.sha256} for style in self.styles],
                "style_px": list(config.style.size_px),
                "features": {
                    "network": features.network,
                    "weights_sha256": features.weights_sha256,
                    "content_layers": list(features.content_layers),
                    "style_layers": list(features.style_layers),
                    "precision": config.features.precision,
                    "layout": config.features.layout,
                },
                "strength": config.style.strength,
                "loss": config.loss.model_dump(mode="json"),
                "crops": config.crops.model_dump(mode="json"),
                "loop": config.loop.model_dump(mode="json"),
                "device": self.device,
                "seed": config.seed,
                "max_pixels": config.max_pixels,
                "input": {"uri": self.source.uri, "version": self.source.version},
            },
            config=config.without_secrets().model_dump(mode="json"),
            versions=batch.library_versions(LIBRARIES),
            units={UNIT: self.source.version},
        )

    def units(self) -> tuple[Unit, ...]:
        """The content images, for the output's books."""
        return (Unit(unit_id=UNIT, format=self.source.format, refs=self.source.refs),)


def features_of(config: FeaturesConfig) -> FeatureSpec:
    """The features with the network's own layers as deep as its weights; numerics that are open are fp32 nchw.

    Raises: ConfigError, WeightsError, StorageError.
    """
    network = network_named(config.network)
    weights = load_weights(config.address, model=config.network, sha256=config.sha256)
    depth = depth_of(network, weights.tensors)
    spec = FeatureSpec(
        network=config.network,
        weights_uri=config.address,
        weights_sha256=weights.sha256,
        content_layers=config.content_layers or network.within(network.content_layers, depth),
        style_layers=config.style_layers or network.within(network.style_layers, depth),
    )
    FeatureExtractor.load(spec)  # what is wrong is told before a cluster starts
    return spec


def read_styles(config: TrainStyleConfig) -> tuple[StyleImage, ...]:
    """The decoded style images, named by their files. Raises: InputError, ConfigError, StorageError."""
    asked = config.style
    uris = [uri for given in asked.uri for uri in _files_of(given)]
    if asked.count is not None and len(uris) < asked.count:
        raise InputError(
            f"style.uri: {len(uris)} style images, style.count asks for {asked.count}; add images or lower count"
        )
    uris = uris[: asked.count]
    _require_engine(config, len(uris))
    styles = tuple(_named(read_style(uri, key="style.uri")) for uri in uris)
    names = [style.name for style in styles]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise InputError(f"style.uri: two styles are called {double!r}; rename one of the files")
    return styles


def _require_engine(config: TrainStyleConfig, num_styles: int) -> None:
    engine = config.network.engine
    if engine == "feedforward" and num_styles > 1:
        raise ConfigError(
            f"style.uri: {num_styles} style images, feedforward learns one; "
            "use --set network.engine=msgnet, or --set style.count=1"
        )
    if engine == "msgnet" and num_styles < 2:
        raise ConfigError(
            f"style.uri: {num_styles} style image, msgnet learns two or more; add images, or use feedforward"
        )


def _files_of(uri: str) -> list[str]:
    """The address itself, or the images of a folder, by name. Raises: InputError for a folder without images."""
    place = absolute_uri(uri)
    if not open_storage(place).list():
        return [place]
    try:
        return [ref.uri for ref in open_source(place, layout="flat").refs]
    except InputError as error:
        raise InputError(f"style.uri: {error}") from error


def _named(style: StyleImage) -> StyleImage:
    return replace(style, name=PurePosixPath(style.name).stem)


def _with_shorter_side(image: Image, side_px: int) -> Image:
    height, width = image.shape[:2]
    factor = side_px / min(height, width)
    return resized(image, (max(side_px, round(height * factor)), max(side_px, round(width * factor))))


def described(styles: Sequence[StyleImage]) -> list[Json]:
    """What a model folder says of its styles."""
    return [
        {"name": style.name, "sha256": style.sha256, "height": style.image.shape[0], "width": style.image.shape[1]}
        for style in styles
    ]
