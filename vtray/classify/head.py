"""The last layer: new, or made of the pretrained head's rows for the classes that both have.

K classes, D features, B images. Works on Linear heads and on 1 x 1 convolutions, with and without bias.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vtray.classify.backbone import Classifier, num_classes_in
from vtray.classify.class_names import NEW_HEAD, Match
from vtray.errors import ConfigError, InputError

Source = Literal["reused", "imprinted", "random"]

NEW_STD = 0.01
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class HeadRow:
    """Where the row of one class comes from; `row`, `wnid` and `lemma` are those of a re-used row's old class."""

    class_name: str
    source: Source
    row: int | None = None
    wnid: str | None = None
    lemma: str | None = None

    def __str__(self) -> str:
        if self.source != "reused":
            return f"{self.class_name}: {self.source}"
        wnid = f"{self.wnid} " if self.wnid else ""
        return f"{self.class_name} <- {self.row} ({wnid}{self.lemma!r})"


def check_head(classifier: Classifier, tensors: Mapping[str, Tensor], *, uri: str, num_categories: int) -> None:
    """Look before loading whether weights have a head to re-use rows of: one row for each known class name.

    Raises: ConfigError with the remedy.
    """
    num_rows = num_classes_in(tensors, classifier)
    if num_rows is None:
        raise ConfigError(
            f"{uri}: has no head ({classifier.head_name}.weight is missing), so there are no rows to re-use; "
            f"{NEW_HEAD}, or give weights with a head"
        )
    if num_rows != num_categories:
        raise ConfigError(
            f"{uri}: its head has {num_rows} rows, but {num_categories} class names are known for them; "
            f"{NEW_HEAD}, or give the weights that the names belong to"
        )


def new_head(classifier: Classifier, *, num_classes: int, generator: torch.Generator) -> None:
    """Replace the head by one of `num_classes` random rows, drawn on the CPU: N(0, 0.01), biases zero.

    Source: torchvision's heads of mobilenet_v2, vgg and squeezenet; here for all networks.
    """
    weight = torch.randn(num_classes, classifier.num_features, generator=generator) * NEW_STD
    _put(classifier, weight, torch.zeros(num_classes))


@torch.no_grad()
def reuse_head(
    classifier: Classifier, matches: Sequence[Match], *, means: Tensor | None, generator: torch.Generator
) -> tuple[HeadRow, ...]:
    """Replace the pretrained head by one row for each match, in order; gives where each row comes from.

    Matched: weight and bias are copied exactly. Others: imprinted from `means` (K, D), the mean features of all
    classes, or drawn as in a new head if there are none; their bias is the mean of the copied biases (of all
    pretrained biases if none is copied).
    Raises: ValueError for means of another shape.
    """
    shape = (len(matches), classifier.num_features)
    if means is not None and means.shape != shape:
        raise ValueError(f"means of shape {tuple(means.shape)} are not allowed for this head; give {shape}")
    old_weight, old_bias = _rows_of(classifier.head)
    copied = [each.row for each in matches if each.row is not None]
    guides = copied or list(range(len(old_weight)))
    if means is None:
        drawn = torch.randn(shape, generator=generator) * NEW_STD
    else:
        drawn = _imprint(means.cpu().float(), old_weight[guides].float())
    weight, bias = drawn.to(old_weight.dtype), old_bias[guides].mean().repeat(len(matches))
    matched = torch.tensor([each.row is not None for each in matches])
    weight[matched], bias[matched] = old_weight[copied], old_bias[copied]
    _put(classifier, weight, bias)
    return tuple(_head_row(each, "random" if means is None else "imprinted") for each in matches)


def class_means(
    classifier: Classifier, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int, *, start: int = 0
) -> Tensor:
    """The mean pooled features of each class, float32 (K, D) on the CPU, summed in float64, in eval mode.

    batches: inputs of the classifier from stage `start` on, on its device, and labels int64 (B,) in 0 to K - 1.
    Raises: InputError if a class has no image.
    """
    sums = torch.zeros(num_classes, classifier.num_features, dtype=torch.float64)
    counts = torch.zeros(num_classes, dtype=torch.int64)
    training = classifier.training
    classifier.eval()
    try:
        with torch.inference_mode():
            for inputs, labels in batches:
                features = classifier.features(inputs, start=start).cpu().double()
                sums.index_add_(0, labels.cpu(), features)
                counts += torch.bincount(labels.cpu(), minlength=num_classes)
    finally:
        classifier.train(training)
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise InputError(
            f"no image of classes number {empty}, so their rows cannot be imprinted; add images of them"
        )
    return (sums / counts[:, None]).float()


def head_table(rows: Sequence[HeadRow]) -> str:
    """The origin of all rows for the log: a line of counts, then one line for each class."""
    counts = Counter(row.source for row in rows)
    new = "".join(f", {counts[source]} {source}" for source in ("imprinted", "random") if counts[source])
    return "\n  ".join([f"head: {counts['reused']} of {len(rows)} re-used{new}", *map(str, rows)])


def _imprint(means: Tensor, guides: Tensor) -> Tensor:
    """A row for each class mean, both (K, D), that answers to the differences between classes as `guides` do.

    The direction is the mean's without what all means share; the length is one for all, such that the logits of
    these rows and of the guides vary alike over the class means.
    Source: imprinted weights, Qi et al. 2018, who compare by cosine. Our logits are products of features that
    are mostly positive, where every image is close to every mean, and trained rows spend much of their norm on
    directions that features seldom take: with the common part or with their norm, new rows drown the copied ones.
    """
    centre = means.mean(0)
    common = functional.normalize(centre, dim=0)
    directions = functional.normalize(means - (means @ common)[:, None] * common)
    deviations = (means - centre).T
    return directions * _rms(guides @ deviations) / _rms(directions @ deviations).clamp_min(TINY)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def _head_row(match: Match, source: Source) -> HeadRow:
    if match.row is None:
        return HeadRow(class_name=match.class_name, source=source)
    return HeadRow(class_name=match.class_name, source="reused", row=match.row, wnid=match.wnid, lemma=match.lemma)


def _rows_of(head: nn.Linear | nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) on the CPU; zeros where the head has no bias."""
    weight = head.weight.detach().cpu().flatten(1)
    bias = torch.zeros(len(weight), dtype=weight.dtype) if head.bias is None else head.bias.detach().cpu()
    return weight, bias


def _put(classifier: Classifier, weight: Tensor, bias: Tensor) -> None:
    """Replace the head by one of the same kind, device and dtype with weight (K, D) and bias (K,)."""
    old = classifier.head
    num_classes, num_features = weight.shape
    biased = old.bias is not None
    new: nn.Linear | nn.Conv2d  # on no device, as its own random weights would draw from torch's global generator
    if isinstance(old, nn.Linear):
        new = nn.Linear(num_features, num_classes, bias=biased, device="meta")
    else:
        new = nn.Conv2d(num_features, num_classes, kernel_size=1, bias=biased, device="meta")
    new.weight = nn.Parameter(weight.view(num_classes, *old.weight.shape[1:]).to(old.weight))
    if biased:
        new.bias = nn.Parameter(bias.to(old.weight))
    new.train(old.training)
    classifier.replace_head(new)
