"""From the keys of a run with a fast engine to the work of its workers: styles by image or name, weights found.

What `auto` became is read from the output's plan where one was begun with the same network and styles.
"""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipelines.stylize_config import StylizeConfig
from pipelines.stylize_engines import FastConfig, MicroastConfig, TrainedConfig
from pipelines.stylize_styles import read_styles
from vtray.errors import ConfigError, ImageError, StorageError, WeightsError
from vtray.images import decode
from vtray.manifest import Json, sha256
from vtray.steps.stylize_unit import Device
from vtray.storage import absolute_uri, join_uri, open_storage
from vtray.style.work import FastSpec, FastWork, Image, StyleImage, WeightsFile
from vtray.weights import weights_sha256

log = logging.getLogger("vtray.stylize")

MICROAST_PARTS = ("content_encoder", "style_encoder", "modulator", "decoder")
FULL_STRENGTH = 1.0


def fast_work_of(config: StylizeConfig, engine: FastConfig, plan: Json | None) -> tuple[FastWork, bool]:
    """What is made of every image, and whether `auto` in it is definite.

    Raises: ConfigError for a style that the model does not know, or a model of another engine; InputError for a
    style image that cannot be used; WeightsError, StorageError.
    """
    styles, weights = _trained(config, engine) if isinstance(engine, TrainedConfig) else _any_style(config, engine)
    spec = FastSpec(
        engine=engine.name,
        weights=weights,
        strength=FULL_STRENGTH if config.style.strength is None else config.style.strength,
        style_px=getattr(engine, "style_px", FastSpec.style_px),
        precision="fp32" if engine.precision == "auto" else engine.precision,
        layout="nchw" if engine.layout == "auto" else engine.layout,
        tiling=engine.tiling,
        memory_mb=engine.memory_mb,
        batch=engine.batch,
        runtime=engine.runtime,
    )
    work = FastWork(
        styles=styles,
        fast=spec,
        named=config.style.uri is None,
        style_scale=config.style.scale,
        seed=config.seed,
        threads=config.threads,
    )
    return _as_planned(work, engine, plan) if engine.is_open else (work, True)


def with_fast_numerics(work: FastWork, engine: FastConfig, *, device: Device) -> FastWork:
    """The work with the fastest precision and layout on this machine, where the config says `auto`."""
    from vtray.style.fast.numerics import choose_fast_numerics

    precision = None if engine.precision == "auto" else engine.precision
    layout = None if engine.layout == "auto" else engine.layout
    chosen, tried = choose_fast_numerics(work, precision=precision, layout=layout, device=device)
    ways = ", ".join(
        f"{way.precision} {way.layout} {way.seconds:.3f} s, {way.deviation:.2f} levels" for way in tried
    )
    log.info("painting in %s %s (%s)", chosen.precision, chosen.layout, ways)
    return replace(work, fast=replace(work.fast, precision=chosen.precision, layout=chosen.layout))


def _as_planned(work: FastWork, engine: FastConfig, plan: Json | None) -> tuple[FastWork, bool]:
    """The work with the precision and layout of a plan that differs from it in nothing else that was chosen."""
    there = (plan or {}).get("work", {}).get("fast", {})
    if there.get("weights") != work.describe()["fast"]["weights"]:
        return work, False
    fixed = {"precision": engine.precision, "layout": engine.layout}
    if any(value not in ("auto", there[key]) for key, value in fixed.items()):
        return work, False
    return replace(work, fast=replace(work.fast, precision=there["precision"], layout=there["layout"])), True


def _any_style(
    config: StylizeConfig, engine: FastConfig
) -> tuple[tuple[StyleImage, ...], tuple[WeightsFile, ...]]:
    """Style images, and weights that take any."""
    files = _microast_files(engine.model) if isinstance(engine, MicroastConfig) else engine.files
    weights = (
        WeightsFile(part=part, uri=absolute_uri(uri), sha256=(expected or weights_sha256(uri)).lower())
        for part, (uri, expected) in files.items()
    )
    return read_styles(config.style), tuple(weights)


def _microast_files(model: str) -> dict[str, tuple[str, str | None]]:
    """The four files of a folder, by the start of their names. Raises: WeightsError if one is missing."""
    folder = absolute_uri(model)
    names = sorted(entry.key for entry in open_storage(folder).list())
    found: dict[str, tuple[str, str | None]] = {}
    for part in MICROAST_PARTS:
        matching = [name for name in names if name.startswith(part)]
        if len(matching) != 1:
            told = f"{len(matching)} files" if matching else "no file"
            wanted = ", ".join(f"{each}*" for each in MICROAST_PARTS)
            raise WeightsError(
                f"engine.model: {folder}: {told} {part}*; the folder must have one each of {wanted}"
            )
        found[part] = (join_uri(folder, matching[0]), None)
    return found


def _trained(
    config: StylizeConfig, engine: TrainedConfig
) -> tuple[tuple[StyleImage, ...], tuple[WeightsFile, ...]]:
    """Styles that the model knows, or images for an MSG-Net; and the model's file."""
    from vtray.style.fast.load import load_fast
    from vtray.style.fast.painter import require_engine

    model = load_fast(engine.model, engine.sha256)
    require_engine(model, engine.name)
    weights = (WeightsFile(part="model", uri=model.uri, sha256=model.sha256),)
    if config.style.uri:
        return read_styles(config.style), weights
    if config.style.name is None:
        return tuple(_thumbnails(model.uri, model.styles, {})), weights
    names = config.style.name
    _require_names(names, tuple(model.grams), uri=model.uri)
    hashes = {name: sha256(gram.numpy().tobytes()) for name, gram in model.grams.items()}
    styles = _thumbnails(model.uri, names, hashes, blank=True)
    shares = config.style.weights or (1.0,) * len(names)
    return tuple(replace(style, weight=share) for style, share in zip(styles, shares, strict=True)), weights


def _require_names(names: Sequence[str], known: Sequence[str], *, uri: str) -> None:
    """Raises: ConfigError, with the list, for a style that the model does not know."""
    if not known:
        raise ConfigError(f"style.name: {uri} knows no styles by name; give style.uri, the images")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"style.name: {uri} has no style {name!r}{hint}; it has {', '.join(known)}")


def _thumbnails(
    uri: str, names: Sequence[str], hashes: dict[str, str], *, blank: bool = False
) -> list[StyleImage]:
    """The styles with the thumbnails of a model directory; without one they are left out, or `blank`."""
    pictures = {name: _thumbnail(uri, name.partition("@")[0]) for name in names}  # NAME@PX is NAME in another size
    return [
        StyleImage(name=name, image=_grey() if image is None else image, sha256=hashes.get(name, ""))
        for name, image in pictures.items()
        if blank or image is not None
    ]


def _thumbnail(uri: str, name: str) -> Image | None:
    try:
        return decode(open_storage(uri).read(f"thumbnails/{name}.png")).image
    except (StorageError, ImageError):  # the model paints without it
        return None


def _grey() -> Image:
    return np.full((64, 64, 3), 160, np.uint8)
