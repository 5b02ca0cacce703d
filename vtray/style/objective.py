"""The number that is made small: content, style and noise of one batch of images, weighed.

B images, C channels, H rows, W columns. Images never mix: every term has shape (B,).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vtray.style.features import FeatureExtractor
from vtray.style.losses import content_loss, gram_matrix, style_loss, total_variation
from vtray.style.targets import Grams
from vtray.style.work import FeatureSpec, LossSpec

STYLE_GAIN = 30.0  # what strength 0.5 gives style against content, both in units of themselves
TV_UNIT_WEIGHT = 0.3
FLOOR = 1e-3

Features = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """The lecture's unweighted losses, summed over layers, and the weighted total; each (B,), float32."""

    content: Tensor
    style: Tensor
    tv: Tensor
    total: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """A style and where it applies: weights (B, 1, H, W) in 0 to 1 at the images' size, or None for everywhere."""

    grams: Grams
    where: Tensor | None = None

    def select(self, kept: Tensor) -> "Region":
        return Region(grams=self.grams, where=None if self.where is None else self.where[kept])

    def gram(self, features: Tensor) -> Tensor:
        """The Gram matrix of the features inside the region, as if the region were all of the image.

        Source: guided Gram matrices, Gatys et al. 2017, with soft edges: features are weighed by the root of the
        region's share of each position.
        """
        if self.where is None:
            return gram_matrix(features)
        shares = torch.nn.functional.adaptive_avg_pool2d(self.where, (features.shape[-2], features.shape[-1]))
        covered = shares.mean((1, 2, 3)).clamp_min(FLOOR).view(-1, 1, 1)
        return gram_matrix(features * shares.sqrt().to(features.dtype)) / covered

    def coverage(self) -> Tensor | float:
        """The share of the image that the region takes, (B,)."""
        return 1.0 if self.where is None else self.where.mean((1, 2, 3))


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """Called with pixels (B, 3, H, W); gives the terms of each image.

    content: features of the content images. units: what each layer's loss is divided by, (B,). weights: of
    content, style and total variation.
    """

    extractor: FeatureExtractor
    content: Features
    regions: tuple[Region, ...]
    style_layers: tuple[str, ...]
    units: Mapping[str, Tensor]
    weights: tuple[float, float, float]
    loss: LossSpec

    @classmethod
    def of(
        cls,
        pixels: Tensor,
        regions: Sequence[Region],
        *,
        extractor: FeatureExtractor,
        features: FeatureSpec,
        loss: LossSpec,
    ) -> "Objective":
        """The objective of a batch of content images.

        With the lecture's weights: w1 content + w2 style + w3 tv, layers added up. Calibrated by strength s: each
        content layer counts in units of its features' variance, each style layer in units of what it is at the
        content image, the mean over layers is taken, and (1 - s)^2 content + STYLE_GAIN s^2 style + TV_UNIT_WEIGHT
        ((1 - s)^2 + s^2) tv is minimized.
        """
        with torch.no_grad():
            found = extractor(pixels)
            content = {layer: found[layer].float() for layer in features.content_layers}
            units = _units(found, regions, features) if loss.content_weight is None else {}
        return cls(
            extractor=extractor,
            content=content,
            regions=tuple(regions),
            style_layers=features.style_layers,
            units=units,
            weights=_weights(loss),
            loss=loss,
        )

    def __call__(self, pixels: Tensor) -> Terms:
        found = self.extractor(pixels)
        content = {layer: content_loss(found[layer], target) for layer, target in self.content.items()}
        style = {layer: _style(found[layer], self.regions, layer) for layer in self.style_layers}
        tv = total_variation(pixels, reduction=self.loss.tv_reduction)
        weigh_content, weigh_style, weigh_tv = self.weights
        return Terms(
            content=_total(content),
            style=_total(style),
            tv=tv,
            total=weigh_content * self._in_units(content, "content")
            + weigh_style * self._in_units(style, "style")
            + weigh_tv * tv,
        )

    def evaluate(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The total of each image, (B,), and its gradient with respect to the pixels."""
        pixels = pixels.detach().requires_grad_()
        total = self(pixels).total
        (gradient,) = torch.autograd.grad(total.sum(), pixels)
        return total.detach(), gradient.contiguous()

    @torch.no_grad()
    def measure(self, pixels: Tensor) -> Terms:
        """The terms without a gradient."""
        return self(pixels)

    def select(self, kept: Tensor) -> "Objective":
        """The same objective for some of its images."""
        return Objective(
            extractor=self.extractor,
            content={layer: features[kept] for layer, features in self.content.items()},
            regions=tuple(region.select(kept) for region in self.regions),
            style_layers=self.style_layers,
            units={key: unit[kept] for key, unit in self.units.items()},
            weights=self.weights,
            loss=self.loss,
        )

    def _in_units(self, losses: Mapping[str, Tensor], kind: str) -> Tensor:
        if not self.units:
            return _total(losses)
        return _total({layer: loss / self.units[f"{kind} {layer}"] for layer, loss in losses.items()}) / len(
            losses
        )


def _weights(loss: LossSpec) -> tuple[float, float, float]:
    if loss.content_weight is None or loss.style_weight is None or loss.tv_weight is None:
        kept, given = (1 - loss.strength) ** 2, loss.strength**2
        return kept, STYLE_GAIN * given, TV_UNIT_WEIGHT * (kept + given)
    return loss.content_weight, loss.style_weight, loss.tv_weight


def _units(found: Features, regions: Sequence[Region], features: FeatureSpec) -> dict[str, Tensor]:
    """The natural size of each loss, never zero: an image without texture or in the style already has one too."""
    units = {}
    for layer in features.content_layers:
        flat = found[layer].float().flatten(2)
        units[f"content {layer}"] = flat.var(2, unbiased=False).mean(1) + FLOOR * flat.square().mean((1, 2))
    for layer in features.style_layers:
        least = sum(FLOOR * region.grams[layer].square().mean() for region in regions)
        units[f"style {layer}"] = _style(found[layer], regions, layer) + least
    return {key: unit.clamp_min(1e-12) for key, unit in units.items()}


def _style(features: Tensor, regions: Sequence[Region], layer: str) -> Tensor:
    """The style loss of one layer, (B,): that of each region by its share of the image."""
    losses = [style_loss(region.gram(features), region.grams[layer]) * region.coverage() for region in regions]
    return torch.stack(losses).sum(0)


def _total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum(0)
