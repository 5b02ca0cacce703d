"""What a finished training of a fast network says of itself: as a table, as JSON and for MLflow."""

from dataclasses import asdict, dataclass

from vtray.manifest import Json


@dataclass(frozen=True, kw_only=True)
class TrainStyleReport:
    """A model and how it came about. failed: broken images. loss, content, style, tv: means of the last records.

    unseen_content, unseen_style_share: on images that were never trained on; the style loss as a share of what it
    was before.
    """

    status: str
    output: str
    model: str
    engine: str
    styles: tuple[str, ...]
    images: int
    failed: int
    examples: tuple[str, ...]
    steps: int
    loss: float
    content: float
    style: float
    unseen_content: float
    unseen_style_share: float
    precision: str
    layout: str
    steps_per_s: float
    seconds: float
    nothing_to_do: bool = False

    def to_json(self) -> Json:
        """The report as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Json) -> "TrainStyleReport":
        """The report that `to_json` gave."""
        return cls(**(values | {name: tuple(values[name]) for name in ("styles", "examples")}))

    def metrics(self) -> dict[str, float]:
        """The numbers that MLflow keeps for the run as a whole."""
        names = ("images", "failed", "loss", "unseen_content", "unseen_style_share", "steps_per_s", "seconds")
        return {f"final_{name}": float(getattr(self, name)) for name in names}

    def table(self) -> str:
        """A short table for the terminal, and where to look."""
        if self.nothing_to_do:
            return f"nothing to do: {self.output} is finished; {self._result()}\nmodel: {self.model}"
        return "\n".join(
            [
                f"{self.status}: {self.engine} for {', '.join(self.styles)}; {self._result()}",
                f"  trained on  {self.images} images, {self.failed} of them broken, in {self.steps} steps",
                f"  arithmetic  {self.precision} {self.layout}, {self.steps_per_s:.2f} steps/s",
                f"  took        {self.seconds:.0f} s",
                f"  model       {self.model}",
                f"  preview     {self.model}/preview.png",
            ]
        )

    def _result(self) -> str:
        return (
            f"style loss of unseen images at {100 * self.unseen_style_share:.0f} % of before, "
            f"content loss {self.unseen_content:.2f}"
        )
