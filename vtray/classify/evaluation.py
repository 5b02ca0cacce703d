"""What an evaluation adds up: tallies of the clean images and of those under each condition, and the worst images.

Everything here adds exactly, so units may be done by any number of workers in any order. N images, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from vtray.classify.metrics import Tally
from vtray.manifest import Json

NUM_DOUBTS = 12  # images for people to look at


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """An image to look at: what the model says of it and how sure it is; true_class and nll if that is known."""

    image_id: str
    class_name: str
    probability: float
    true_class: str | None = None
    nll: float | None = None

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Sorts the worst first: wrong ones by confidence, then right ones by loss; unlabelled ones by doubt."""
        if self.true_class is None or self.nll is None:
            return False, self.probability, self.image_id
        correct = self.class_name == self.true_class
        return correct, -self.nll if correct else -self.probability, self.image_id


def worst(doubts: Iterable[Doubt]) -> tuple[Doubt, ...]:
    """The NUM_DOUBTS images that are most worth a look, in that order."""
    return tuple(sorted(doubts, key=lambda doubt: doubt.rank)[:NUM_DOUBTS])


Conditions = Mapping[str, Mapping[int, Tally]]  # condition -> severity -> tally


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The measured part of an input, or all of it.

    plain: at temperature 1; calibrated, sampled and conditions: at the model's. sampled: the images of the
    robustness sample as they are; conditions: the same images under each condition. A part without images of the
    sample has no conditions.
    """

    plain: Tally
    calibrated: Tally
    sampled: Tally
    conditions: Conditions = field(default_factory=dict)

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, *, temperature: float) -> Self:
        """Of clean images, without a sample: logits float (N, K), labels int64 (N,).

        Raises: WeightsError if a logit is not finite.
        """
        return cls(
            plain=Tally.of(logits, labels),
            calibrated=Tally.of(logits / temperature, labels),
            sampled=Tally.zero(logits.shape[1]),
        )

    def __add__(self, other: "Evaluation") -> "Evaluation":
        return Evaluation(
            plain=self.plain + other.plain,
            calibrated=self.calibrated + other.calibrated,
            sampled=self.sampled + other.sampled,
            conditions=_added(self.conditions, other.conditions),
        )

    def to_json(self) -> Json:
        """The evaluation as JSON values."""
        return {
            "plain": self.plain.to_json(),
            "calibrated": self.calibrated.to_json(),
            "sampled": self.sampled.to_json(),
            "conditions": {
                name: {str(severity): tally.to_json() for severity, tally in tallies.items()}
                for name, tallies in self.conditions.items()
            },
        }

    @classmethod
    def from_json(cls, values: Json) -> Self:
        """The evaluation of `to_json`, exactly."""
        return cls(
            plain=Tally.from_json(values["plain"]),
            calibrated=Tally.from_json(values["calibrated"]),
            sampled=Tally.from_json(values["sampled"]),
            conditions={
                name: {int(severity): Tally.from_json(tally) for severity, tally in tallies.items()}
                for name, tallies in values["conditions"].items()
            },
        )


def total(parts: Sequence[Evaluation], *, num_classes: int) -> Evaluation:
    """All parts together; that of no images if there are none."""
    zero = Tally.zero(num_classes)
    return sum(parts, Evaluation(plain=zero, calibrated=zero, sampled=zero))


def _added(ours: Conditions, theirs: Conditions) -> Conditions:
    """Parts with images of the sample have the same conditions and severities; others have none."""
    if not ours or not theirs:
        return ours or theirs
    return {
        name: {severity: tally + theirs[name][severity] for severity, tally in tallies.items()}
        for name, tallies in ours.items()
    }
