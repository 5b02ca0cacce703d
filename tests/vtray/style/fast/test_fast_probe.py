"""The arithmetic of a fast training: tried on steps, kept if the loss agrees."""

import pytest
import torch
from fast_training import task_of

from vtray.style.fast import probe
from vtray.style.fast.probe import choose_step, with_numerics
from vtray.style.fast.trainer import FastTrainer


def test_network_and_features_are_computed_alike(tmp_path):
    task = with_numerics(task_of(tmp_path), "bf16", "nhwc")
    assert (task.precision, task.layout) == (task.features.precision, task.features.layout) == ("bf16", "nhwc")
    trainer = FastTrainer(task=task)
    assert trainer.network.conv2.conv2d.weight.is_contiguous(memory_format=torch.channels_last)
    assert trainer.network.conv2.conv2d.weight.dtype == torch.float32


@pytest.mark.parametrize("engine", ["feedforward", "msgnet"])
def test_all_ways_are_tried_and_one_is_chosen(tmp_path, engine):
    chosen = choose_step(task_of(tmp_path, engine), crop_px=32)
    assert set(chosen.seconds) == {"fp32 nchw", "fp32 nhwc", "bf16 nchw", "bf16 nhwc"}
    assert chosen.step_s > 0


def test_what_is_given_is_kept(tmp_path):
    chosen = choose_step(task_of(tmp_path), precision="fp32", layout="nhwc", crop_px=32)
    assert (chosen.precision, chosen.layout, list(chosen.seconds)) == ("fp32", "nhwc", ["fp32 nhwc"])


def test_a_way_whose_loss_is_another_is_never_chosen(tmp_path, monkeypatch):
    class Wrong(FastTrainer):
        def step(self, crops):
            return super().step(crops) * (1.0 if self.task.precision == "fp32" else 2.0)

    monkeypatch.setattr(probe, "FastTrainer", Wrong)
    assert choose_step(task_of(tmp_path), layout="nchw", crop_px=32).precision == "fp32"
