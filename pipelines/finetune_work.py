"""From a config and its input to everything definite: classifier, phases, images, and the plan that names them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pipelines import batch
from pipelines.finetune_config import FinetuneConfig
from vtray.augment.recipe import Recipe
from vtray.classify.backbone import Classifier, build_classifier, load_weights_into
from vtray.classify.class_names import Match, match_classes, read_aliases
from vtray.classify.examples import Examples, counts_by_class
from vtray.classify.head import HeadRow, check_head, new_head, reuse_head
from vtray.classify.model_dir import classes_sha256
from vtray.classify.phases import Phase, PhasePlan
from vtray.classify.preprocessing import Preprocessing
from vtray.classify.published import class_names_of, preprocessing_of
from vtray.classify.sampling import Sampling
from vtray.classify.train_spec import TrainSpec
from vtray.errors import ConfigError
from vtray.manifest import Json, Plan
from vtray.seeding import seed_for
from vtray.sources import ImageRef, Source, Unit
from vtray.storage import absolute_uri
from vtray.weights import Weights, load_weights

JOB = "finetune"
UNIT = "model"  # the only unit of the output's books
LIBRARIES = (*batch.CODECS, "torch", "torchvision")

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FinetuneWork:
    """A training that is ready to begin; nothing is started or written.

    weights: of the pretrained network, None from scratch. matches: of class names, for a head that is re-used.
    """

    config: FinetuneConfig
    source: Source
    examples: Examples
    recipe: Recipe | None
    weights: Weights | None
    matches: tuple[Match, ...] | None
    preprocessing: Preprocessing
    stage_names: tuple[str, ...]
    phases: tuple[Phase, ...]
    device: Device

    @classmethod
    def of(cls, config: FinetuneConfig, *, device: Device) -> "FinetuneWork":
        """List the input, read the weights, check all that can be checked before a cluster starts.

        Raises: InputError, ConfigError, WeightsError, StorageError.
        """
        source = batch.open_input(config)
        examples = Examples.of(source, val_fraction=config.val_fraction, seed=config.seed)
        classifier = build_classifier(config.backbone, num_classes=len(class_names_of(config.backbone)))
        weights = _weights(config, classifier)
        return cls(
            config=config,
            source=source,
            examples=examples,
            recipe=config.augmentation(),
            weights=weights,
            matches=_matches(config, classifier, examples.classes, weights),
            preprocessing=_preprocessing(config),
            stage_names=classifier.stage_names,
            phases=_phase_plan(config).phases(classifier.stage_names),
            device=device,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        return self.examples.classes

    @property
    def output_uri(self) -> str:
        return absolute_uri(self.config.output.uri)

    @property
    def epochs(self) -> int:
        return self.phases[-1].last_epoch + 1

    def plan(self) -> Plan:
        """What decides the weights goes into `work`; workers, tracking and the evaluation afterwards do not."""
        config = self.config
        return Plan(
            job=JOB,
            work={
                "backbone": config.backbone,
                "weights": self.weights.sha256 if self.weights else None,
                "head": config.head.model_dump(mode="json", exclude={"aliases"})
                | {"rows": [match.row for match in self.matches] if self.matches else None},
                "preprocessing": self.preprocessing.to_json(),
                "phases": [_described(phase) for phase in self.phases],
                "lr": config.lr,
                "loop": config.loop.model_dump(mode="json"),
                "recipe": self.recipe.digest if self.recipe else None,
                "cache": config.cache,
                "precision": config.precision,
                "layout": config.layout,
                "device": self.device,
                "seed": config.seed,
                "max_pixels": config.max_pixels,
                "input": {
                    "uri": self.source.uri,
                    "version": self.source.version,
                    "classes": classes_sha256(self.classes),
                    "val_fraction": config.val_fraction if self.examples.carved else None,
                },
            },
            config=config.without_secrets().model_dump(mode="json"),
            versions=batch.library_versions(LIBRARIES),
            units={UNIT: self.source.version},
        )

    def units(self) -> tuple[Unit, ...]:
        """The images of the training, for the output's books."""
        return (Unit(unit_id=UNIT, format=self.source.format, refs=self.refs),)

    @property
    def refs(self) -> tuple[ImageRef, ...]:
        """All images that are trained on or validated with, under the names train and val, sorted."""
        train = (replace(ref, split="train") for ref in self.examples.train)
        val = (replace(ref, split="val") for ref in self.examples.val)
        return tuple(sorted((*train, *val), key=lambda ref: ref.image_id))

    def split_source(self) -> Source:
        """The input as these images alone."""
        return replace(self.source, refs=self.refs)

    def sampling(self, num_images: int) -> Sampling:
        """The order of the training images. Raises: ConfigError for a batch that cannot be cut into its parts."""
        loop = self.config.loop
        if loop.batch_size % loop.accumulate:
            raise ConfigError(
                f"loop.batch_size {loop.batch_size} is not a multiple of loop.accumulate {loop.accumulate}"
            )
        return Sampling(
            num_images=num_images, batch_size=loop.batch_size // loop.accumulate, seed=self.config.seed
        )

    def spec(self, sampling: Sampling, choices: Json) -> TrainSpec:
        """What the loop is told; `choices` are the measured ones."""
        loop = self.config.loop
        return TrainSpec(
            epochs=self.epochs,
            steps_per_epoch=sampling.steps_per_epoch,
            batch_size=sampling.batch_size,
            lr=choices["lr"],
            optimizer=loop.optimizer,
            momentum=loop.momentum,
            weight_decay=loop.weight_decay,
            layer_decay=loop.layer_decay,
            warmup_epochs=loop.warmup_epochs,
            label_smoothing=loop.label_smoothing,
            mixes=loop.mix,
            clip_norm=loop.clip_norm,
            accumulate=loop.accumulate,
            ema_decay=loop.ema_decay,
            class_weights=self._class_weights(),
            precision=choices["precision"],
            layout=choices["layout"],
            seed=self.config.seed,
        )

    def _class_weights(self) -> tuple[float, ...] | None:
        """Inverse frequencies, with mean 1 over the images."""
        if self.config.loop.class_weights == "none":
            return None
        counts = counts_by_class(self.examples.train, len(self.classes))
        return tuple(sum(counts) / len(counts) / count for count in counts)

    def without(self, image_ids: frozenset[str]) -> "FinetuneWork":
        """The same without images that turned out to be broken. Raises: InputError if a class is left empty."""
        return replace(self, examples=self.examples.without(image_ids)) if image_ids else self

    def pretrained(self) -> Classifier:
        """The network with its pretrained weights, and their head if they have one; random from scratch."""
        generator_seed = seed_for(self.config.seed, "initial weights")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_seed)
            classifier = build_classifier(
                self.config.backbone,
                num_classes=len(class_names_of(self.config.backbone)),
                dropout=self.config.head.dropout,
            )
        if self.weights:
            load_weights_into(
                classifier, self.weights.tensors, uri=self.weights.uri, head=self.matches is not None
            )
        return classifier

    def with_head(self, classifier: Classifier, means: torch.Tensor | None) -> tuple[HeadRow, ...]:
        """Give the classifier the head that training begins with; returns where its rows come from."""
        generator = torch.Generator().manual_seed(seed_for(self.config.seed, "head"))
        if self.matches is not None:
            return reuse_head(classifier, self.matches, means=means, generator=generator)
        new_head(classifier, num_classes=len(self.classes), generator=generator)
        return tuple(HeadRow(class_name=name, source="random") for name in self.classes)

    def under(self, config: FinetuneConfig) -> "FinetuneWork":
        """The same images and weights under a config that differs in freezing, loop, augmentation or cache.

        Raises: ConfigError for a stage that is not there, or a faulty recipe.
        """
        phases = _phase_plan(config).phases(self.stage_names)
        return replace(self, config=config, recipe=config.augmentation(), phases=phases)

    @property
    def needs_means(self) -> bool:
        """Whether rows of the head are to be imprinted."""
        unmatched = self.matches is not None and any(match.row is None for match in self.matches)
        return unmatched and self.config.head.unmatched == "imprint"


def _weights(config: FinetuneConfig, classifier: Classifier) -> Weights | None:
    """The pretrained weights, looked over; None from scratch."""
    if config.from_scratch:
        return None
    weights = load_weights(config.weights_address, model=config.backbone, sha256=config.sha256)
    load_weights_into(classifier, weights.tensors, uri=weights.uri, head=False)
    return weights


def _matches(
    config: FinetuneConfig, classifier: Classifier, classes: Sequence[str], weights: Weights | None
) -> tuple[Match, ...] | None:
    if config.head.init != "reuse" or weights is None:
        return None
    categories = class_names_of(config.backbone)
    check_head(classifier, weights.tensors, uri=weights.uri, num_categories=len(categories))
    aliases = read_aliases(absolute_uri(config.head.aliases)) if config.head.aliases else None
    return match_classes(classes, categories=categories, aliases=aliases)


def _preprocessing(config: FinetuneConfig) -> Preprocessing:
    """The weights' own, with the sizes that the config names."""
    own = preprocessing_of(config.backbone, config.weights)
    sizes = {name: size for name, size in config.preprocess.model_dump().items() if size is not None}
    if "crop_px" in sizes and "resize_px" not in sizes:
        sizes["resize_px"] = max(sizes["crop_px"], round(own.resize_px * sizes["crop_px"] / own.crop_px))
    made = replace(own, **sizes)
    if made.crop_px > made.resize_px:
        raise ConfigError(f"preprocess: crop_px {made.crop_px} is larger than resize_px {made.resize_px}")
    return made


def _phase_plan(config: FinetuneConfig) -> PhasePlan:
    return PhasePlan(
        strategy=config.strategy,
        epochs=config.loop.epochs,
        probe_epochs=config.loop.probe_epochs,
        freeze=config.freeze,
        window=config.train_stages,
        head_lr_factor=config.loop.head_lr_factor,
        head_is_new=config.head.init == "new",
    )


def _described(phase: Phase) -> Json:
    return {
        "name": phase.name,
        "epochs": phase.epochs,
        "frozen": sorted(phase.frozen),
        "head_lr_factor": phase.head_lr_factor,
    }
