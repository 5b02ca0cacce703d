"""What training a fast network will cost, before it starts: steps, checkpoints, and time from a few steps here."""

from dataclasses import dataclass

import torch

from pipelines.machine import this_machine
from pipelines.train_style import open_numerics, task_of
from pipelines.train_style_config import Device, TrainStyleConfig
from pipelines.train_style_work import TrainStyleWork
from vtray.report.numbers import bytes_text
from vtray.style.fast.probe import StepNumerics, choose_step
from vtray.style.fast.trainer import new_network

STATE_COPIES = 3  # weights and the two moments of Adam
BYTES = 4


@dataclass(frozen=True, kw_only=True)
class TrainStyleEstimate:
    """A training that has not begun. seconds_per_step: on this machine, measured."""

    images: int
    unseen: int
    styles: tuple[str, ...]
    engine: str
    parameters: int
    steps: int
    crops: str
    checkpoint_every: int
    numerics: StepNumerics
    threads: int

    @property
    def minutes(self) -> float:
        return self.steps * self.numerics.step_s / 60

    def table(self) -> str:
        """Lines for the terminal."""
        state = bytes_text(STATE_COPIES * BYTES * self.parameters)
        speed = (
            f"{1 / self.numerics.step_s:.2f} steps/s in {self.numerics.name} on {self.threads} threads (probed)"
        )
        return "\n".join(
            [
                f"images       {self.images} to train on, {self.unseen} kept out",
                f"styles       {len(self.styles)}: {', '.join(self.styles)}",
                f"network      {self.engine}, {self.parameters:,} parameters",
                f"steps        {self.steps} of {self.crops}, {speed}",
                f"checkpoints  {state} every {self.checkpoint_every} steps",
                f"total        about {self.minutes:.1f} min on one worker like this machine, sheets left out",
            ]
        )


def estimate(config: TrainStyleConfig) -> TrainStyleEstimate:
    """List the input, load the weights and time a few steps here. Raises: VtrayError as the run itself would."""
    device: Device = "cuda" if config.use_gpu is not False and torch.cuda.is_available() else "cpu"
    work = TrainStyleWork.of(config, device=device)
    threads = config.threads or int(this_machine().num_cpus)
    task = task_of(work, output_uri=work.output_uri, folder="", threads=threads)
    loop, crop_px = config.loop, config.crops.crop_px
    return TrainStyleEstimate(
        images=len(work.train_refs),
        unseen=len(work.unseen),
        styles=tuple(style.name for style in work.styles),
        engine=work.network.engine,
        parameters=sum(each.numel() for each in new_network(work.network, seed=config.seed).parameters()),
        steps=loop.steps,
        crops=f"{loop.batch_size} crops of {crop_px} px",
        checkpoint_every=loop.checkpoint_every,
        numerics=choose_step(task, **open_numerics(config), crop_px=crop_px),
        threads=threads,
    )
