"""From the keys of a stylize run to the work that its workers do: images read, names and `auto` made definite.

What needs the network (default layers of cut weights, the probe behind `auto`) is decided once for an output; a
rerun reads it from the output's plan and imports no torch.
"""

import logging
from dataclasses import replace
from pathlib import PurePosixPath

from pipelines.stylize_config import STARTS, EngineConfig, FeaturesConfig, StyleConfig, StylizeConfig
from vtray.errors import ImageError, InputError, StorageMissing
from vtray.images import decode
from vtray.manifest import Json, sha256
from vtray.steps.style_masks import MaskSource
from vtray.steps.stylize_unit import Device
from vtray.storage import absolute_uri, open_storage, read_uri
from vtray.style.networks import network_named
from vtray.style.work import FeatureSpec, LossSpec, OptimizeSpec, StyleImage, StyleWork
from vtray.weights import TORCHVISION, load_weights, weights_sha256

log = logging.getLogger("vtray.stylize")

MIN_STYLE_PX = 32  # a shorter side has no texture to compare
JOB = "stylize"
LEFT_OPEN = ("content_layers", "style_layers", "precision", "layout")  # keys that are null or auto by default


def work_of(config: StylizeConfig, plan: Json | None) -> tuple[StyleWork, bool]:
    """What is made of every image, and whether names and `auto` in it are definite, as the output's plan has them.

    Raises: InputError for a style image that cannot be used; ConfigError, WeightsError, StorageError.
    """
    features, definite = _features(config.features, plan)
    work = StyleWork(
        styles=read_styles(config.style),
        features=features,
        loss=LossSpec(strength=config.style.strength, **config.loss.model_dump()),
        optimize=_optimize(config.engine),
        style_scale=config.style.scale,
        seed=config.seed,
        threads=config.threads,
    )
    return work, definite


def with_layers(work: StyleWork, config: FeaturesConfig) -> StyleWork:
    """The work with those of the network's own layers that its weights have. Raises: ConfigError, WeightsError."""
    from vtray.style.features import depth_of

    if config.content_layers and config.style_layers:
        return work
    features, network = work.features, network_named(config.network)
    weights = load_weights(features.weights_uri, model=features.network, sha256=features.weights_sha256)
    depth = depth_of(network, weights.tensors)
    content = config.content_layers or network.within(features.content_layers, depth)
    style = config.style_layers or network.within(features.style_layers, depth)
    return replace(work, features=replace(features, content_layers=content, style_layers=style))


def with_numerics(work: StyleWork, config: FeaturesConfig, *, device: Device) -> StyleWork:
    """The work with the fastest precision and layout on this machine, where the config says `auto`."""
    from vtray.style.probe import choose_numerics

    precision = None if config.precision == "auto" else config.precision
    layout = None if config.layout == "auto" else config.layout
    chosen, tried = choose_numerics(work, precision=precision, layout=layout, device=device)
    ways = ", ".join(f"{way.precision} {way.layout} {way.seconds:.3f} s" for way in tried)
    log.info("features in %s %s (seconds of one evaluation: %s)", chosen.precision, chosen.layout, ways)
    return replace(work, features=replace(work.features, precision=chosen.precision, layout=chosen.layout))


def read_styles(config: StyleConfig) -> tuple[StyleImage, ...]:
    """The decoded style images. Raises: InputError, StorageError."""
    weights = config.weights or (1.0,) * len(config.uri)
    return tuple(
        replace(read_style(uri, key="style.uri"), weight=weight)
        for uri, weight in zip(config.uri, weights, strict=True)
    )


def read_style(uri: str, *, key: str) -> StyleImage:
    """One image file that the config names under `key`.

    Raises: InputError if it is missing, broken or smaller than 32 px; StorageError.
    """
    place = absolute_uri(uri)
    try:
        encoded = read_uri(place)
        image = decode(encoded).image
    except StorageMissing as error:
        raise InputError(f"{key}: {place}: no such file; name an image file") from error
    except ImageError as error:
        raise InputError(f"{key}: {place}: {error}; choose another image") from error
    height, width = image.shape[:2]
    if min(height, width) < MIN_STYLE_PX:
        raise InputError(
            f"{key}: {place} is {width} x {height} px, each side must have {MIN_STYLE_PX}; choose a larger image"
        )
    return StyleImage(name=PurePosixPath(place).name, image=image, sha256=sha256(encoded))


def read_masks(config: StyleConfig) -> tuple[MaskSource | None, ...]:
    """Where each style applies; a mask that is one file is read here. Raises: InputError, StorageError."""
    return tuple(None if uri is None else _read_mask(absolute_uri(uri)) for uri in config.masks or ())


def _read_mask(uri: str) -> MaskSource:
    folder = [(entry.key, entry.size, entry.version) for entry in open_storage(uri).list()]
    if folder:
        return MaskSource(uri=uri, version=sha256(repr(folder).encode()))
    try:
        encoded = read_uri(uri)
        return MaskSource(uri=uri, version=sha256(encoded), image=decode(encoded).image)
    except StorageMissing as error:
        raise InputError(f"style.masks: {uri}: no such file, or an empty folder") from error
    except ImageError as error:
        raise InputError(f"style.masks: {uri}: {error}; choose another image") from error


def _features(config: FeaturesConfig, plan: Json | None) -> tuple[FeatureSpec, bool]:
    """The features, and whether they are those of the plan, which has all that the config names."""
    network, there = network_named(config.network), _planned(config, plan)
    spec = FeatureSpec(
        network=config.network,
        weights_uri=config.address,
        weights_sha256=_weights_sha256(config, there),
        content_layers=config.content_layers or network.content_layers,
        style_layers=config.style_layers or network.style_layers,
        precision="fp32" if config.precision == "auto" else config.precision,
        layout="nchw" if config.layout == "auto" else config.layout,
    )
    if there.get("weights_sha256") != spec.weights_sha256:
        return spec, False
    content, style = tuple(there["content_layers"]), tuple(there["style_layers"])
    spec = replace(spec, content_layers=content, style_layers=style)
    return replace(spec, precision=there["precision"], layout=there["layout"]), True


def _planned(config: FeaturesConfig, plan: Json | None) -> Json:
    """The definite features of a plan that has all that the config names, with the address of the weights."""
    if plan is None or plan["job"] != JOB:
        return {}
    features = plan["work"]["features"] | {"weights": plan["config"]["features"]["weights"]}
    named = config.model_dump(mode="json", include=set(LEFT_OPEN) | {"network"})
    agrees = all(features[key] == value for key, value in named.items() if value not in (None, "auto"))
    return features if agrees else {}


def _weights_sha256(config: FeaturesConfig, there: Json) -> str:
    """What the weights file must hash to. torchvision's files never change: for them the plan is believed."""
    if config.sha256:
        return config.sha256.lower()
    if config.weights.startswith(TORCHVISION) and config.weights == there.get("weights"):
        return str(there["weights_sha256"])
    return weights_sha256(config.address, model=config.network)


def _optimize(config: EngineConfig) -> OptimizeSpec:
    values = config.model_dump()
    if config.start not in STARTS:
        values |= {"start": "image", "start_image": read_style(config.start, key="engine.start")}
    return OptimizeSpec(**values)
