"""What the style loss compares with: Gram matrices of the style images, computed once for each size.

B images, C channels, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vtray.style.features import FeatureExtractor
from vtray.style.losses import gram_matrix
from vtray.style.pixels import Size, resized, to_pixels
from vtray.style.work import StyleImage

Grams = Mapping[str, Tensor]  # layer -> (1, C, C)
SIZE_STEP_PX = 16


@dataclass(kw_only=True, eq=False)
class StyleTargets:
    """The Gram matrices of every style at the sizes that were asked for.

    scale: size of a style image relative to the content image; larger ones give larger strokes.
    """

    extractor: FeatureExtractor
    styles: Sequence[StyleImage]
    layers: Sequence[str]
    scale: float = 1.0
    _known: dict[tuple[str, Size], Grams] = field(default_factory=dict)

    def of(self, longer_side_px: int) -> tuple[Grams, ...]:
        """One set of Gram matrices for each style, for content whose longer side is that long."""
        return tuple(self._grams(style, self._size(style, longer_side_px)) for style in self.styles)

    def blend(self, longer_side_px: int) -> Grams:
        """All styles in one, by their weights.

        The squared distance to the weighted mean has the gradient of the weighted sum of squared distances, at the
        price of one.
        """
        weights = torch.tensor([style.weight for style in self.styles])
        shares = (weights / weights.sum()).tolist()
        each = self.of(longer_side_px)
        return {
            layer: sum((share * grams[layer] for share, grams in zip(shares, each, strict=True)), torch.zeros(()))
            for layer in self.layers
        }

    def _size(self, style: StyleImage, longer_side_px: int) -> Size:
        """The style's proportions at the wanted size, in coarse steps: a catalog of many sizes needs few sets."""
        height, width = style.image.shape[:2]
        wanted = max(SIZE_STEP_PX, round(longer_side_px * self.scale / SIZE_STEP_PX) * SIZE_STEP_PX)
        factor = wanted / max(height, width)
        least = self.extractor.min_side_px
        return max(least, round(height * factor)), max(least, round(width * factor))

    def _grams(self, style: StyleImage, size: Size) -> Grams:
        key = (style.sha256, size)
        if key not in self._known:
            pixels = to_pixels([resized(style.image, size)], self.extractor.device)
            with torch.no_grad():
                features = self.extractor(pixels)
            self._known[key] = {layer: gram_matrix(features[layer]) for layer in self.layers}
        return self._known[key]
