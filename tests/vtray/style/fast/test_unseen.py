"""What is shown of a training: results of unseen images with their losses, and the sheet."""

import numpy as np
import pytest
import torch
from fast_training import crops_of, task_of
from style_networks import picture

from vtray.images import decode
from vtray.style.fast.probe import with_numerics
from vtray.style.fast.trainer import LEVELS, Drawn, FastTrainer
from vtray.style.fast.unseen import paint_unseen, thumbnail, unseen_metrics, unseen_sheet


@pytest.fixture
def trainer(tmp_path):
    unseen = {"a.png": picture(1, 32, 40), "b/c.png": picture(2, 40, 32)}
    return FastTrainer(task=task_of(tmp_path, "msgnet", unseen=unseen))


def test_every_image_in_every_style_at_its_own_size(trainer):
    painted = paint_unseen(trainer)
    assert [(each.name, each.style) for each in painted] == [
        ("a.png", "down"),
        ("a.png", "across"),
        ("b/c.png", "down"),
        ("b/c.png", "across"),
    ]
    assert [each.image.shape for each in painted] == [(32, 40, 3)] * 2 + [(40, 32, 3)] * 2


def test_a_training_in_bf16_shows_its_network_too(tmp_path):
    trainer = FastTrainer(task=with_numerics(task_of(tmp_path, "msgnet"), "bf16", "nhwc"))
    trainer.step(crops_of(0))
    gram = trainer.gram_of(trainer.drawn(0))
    assert gram.dtype == trainer.network.comatch.matrix(gram).dtype == torch.float32
    assert [each.image.shape for each in paint_unseen(trainer)] == [(32, 40, 3)] * 2


def test_a_network_that_changes_nothing_has_no_content_loss_and_all_of_the_style_loss(trainer, monkeypatch):
    class Nothing(torch.nn.Module):
        def forward(self, levels):
            return levels

    trainer.network = Nothing()
    metrics = unseen_metrics(paint_unseen(trainer))
    assert metrics["unseen_content"] == pytest.approx(0, abs=1e-9)
    assert metrics["unseen_style_share"] == pytest.approx(1, abs=1e-4)


def test_the_losses_are_those_of_the_8_bit_image(trainer):
    first = paint_unseen(trainer)[0]
    task = trainer.task
    content = torch.from_numpy(task.unseen["a.png"].transpose(2, 0, 1)[None].copy()).float() / LEVELS
    result = torch.from_numpy(first.image.transpose(2, 0, 1)[None].copy()).float() / LEVELS
    objective = trainer.objective(content, [Drawn(style=task.styles[0], size_px=32)])
    assert first.content == pytest.approx(float(objective.measure(result).content[0]), rel=1e-5)
    share = objective.measure(result).style[0] / objective.measure(content).style[0]
    assert first.share == pytest.approx(float(share), rel=1e-5)


def test_the_sheet_shows_styles_contents_and_results(trainer):
    task = trainer.task
    sheet = decode(unseen_sheet(paint_unseen(trainer), task.unseen, task.styles, title="after 0 of 6 steps")).image
    assert sheet.shape[0] > 3 * 224  # the styles and two images
    assert sheet.shape[1] > 3 * 224  # content and two styles
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 500


def test_a_thumbnail_is_small_and_keeps_its_proportions():
    assert thumbnail(picture(1, 100, 512)).shape == (50, 256, 3)
    assert thumbnail(picture(1, 100, 200)).shape == (100, 200, 3)
