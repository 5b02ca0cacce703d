"""One step of a fast training: its loss, its styles, and going on from a state."""

import pytest
import torch
from fast_training import crops_of, task_of

from vtray.style.fast.task import NetworkSpec, StepSpec
from vtray.style.fast.trainer import (
    LEVELS,
    Drawn,
    FastTrainer,
    begin_as_identity,
    new_network,
    style_pixels,
)
from vtray.style.losses import gram_matrix
from vtray.style.objective import Objective, Region

ENGINES = ["feedforward", "msgnet"]


def weights_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("engine", ENGINES)
class TestStep:
    def test_its_loss_is_that_of_stylize_on_the_networks_results(self, engine, tmp_path):
        task = task_of(tmp_path, engine)
        trainer, crops = FastTrainer(task=task), crops_of(0)
        expected = torch.zeros(4)
        for place, crop in enumerate(crops.split(1)):
            drawn, content = trainer.drawn(place), crop.float() / LEVELS
            style = style_pixels(drawn, trainer.extractor, "cpu")
            found = trainer.extractor(style)
            grams = {layer: gram_matrix(found[layer]) for layer in task.features.style_layers}
            objective = Objective.of(
                content,
                (Region(grams=grams),),
                extractor=trainer.extractor,
                features=task.features,
                loss=task.loss,
            )
            extra = [trainer.network.style_gram(style * LEVELS)] if engine == "msgnet" else []
            terms = objective.measure(trainer.network(content * LEVELS, *extra) / LEVELS)
            expected += torch.cat([terms.total, terms.content, terms.style, terms.tv])
        assert torch.allclose(trainer.step(crops).float(), expected, rtol=1e-4)

    def test_steps_lower_the_loss(self, engine, tmp_path):
        task = task_of(tmp_path, engine, steps=30)
        trainer, crops = FastTrainer(task=task), crops_of(0)
        losses = [float(trainer.step(crops)[0]) for _ in range(30)]
        assert sum(losses[-6:]) < 0.7 * sum(losses[:6])

    def test_every_weight_moves(self, engine, tmp_path):
        trainer = FastTrainer(task=task_of(tmp_path, engine))
        before = weights_of(trainer)
        for step in range(2):
            trainer.step(crops_of(step))
        unmoved = [name for name, tensor in weights_of(trainer).items() if torch.equal(tensor, before[name])]
        assert unmoved == []

    def test_a_state_goes_on_with_the_same_bits(self, engine, tmp_path):
        straight = FastTrainer(task=task_of(tmp_path, engine))
        for step in range(3):
            straight.step(crops_of(step))
        state = straight.state_dict()
        for step in range(3, 6):
            straight.step(crops_of(step))
        resumed = FastTrainer(task=task_of(tmp_path, engine))
        resumed.load_state_dict(state)
        assert resumed.done == 3
        for step in range(3, 6):
            resumed.step(crops_of(step))
        assert same(weights_of(straight), weights_of(resumed))

    def test_the_seed_decides_the_first_weights(self, engine, tmp_path):
        spec = task_of(tmp_path, engine).network
        one, again, other = (new_network(spec, seed=seed).state_dict() for seed in (0, 0, 1))
        assert same(one, again)
        assert not same(one, other)


class TestStyles:
    def test_each_style_comes_once_in_a_round(self, tmp_path):
        trainer = FastTrainer(task=task_of(tmp_path, "msgnet"))
        rounds = [{trainer.drawn(step).style.name for step in (turn, turn + 1)} for turn in range(0, 40, 2)]
        assert rounds == [{"down", "across"}] * 20
        assert {trainer.drawn(step).style.name for step in range(0, 40, 2)} == {"down", "across"}

    def test_a_batch_has_many_styles_and_ranks_share_them(self, tmp_path):
        """Two ranks with a crop each paint what one process paints with both."""
        task = task_of(tmp_path, "msgnet")
        whole = FastTrainer(task=task).step(crops_of(0))
        parts = [FastTrainer(task=task, rank=rank).step(crops_of(0)[rank : rank + 1]) for rank in (0, 1)]
        assert torch.allclose(sum(parts), whole, rtol=1e-4)

    def test_a_gram_matrix_is_used_for_ten_steps(self, tmp_path, monkeypatch):
        trainer, made = FastTrainer(task=task_of(tmp_path, "msgnet", steps=30, style_px=(32,))), []
        gram_of = trainer.gram_of
        monkeypatch.setattr(trainer, "gram_of", lambda drawn: made.append(trainer.done) or gram_of(drawn))
        for step in range(21):
            trainer.step(crops_of(step))
        assert made == [0, 0, 10, 10, 20, 20]

    def test_sizes_are_those_of_the_task(self, tmp_path):
        trainer = FastTrainer(task=task_of(tmp_path, "msgnet"))
        assert {trainer.drawn(step).size_px for step in range(20)} == {32, 48}
        drawn = Drawn(style=trainer.task.styles[0], size_px=48)
        assert style_pixels(drawn, trainer.extractor, "cpu").shape == (1, 3, 48, 48)

    def test_comatch_begins_as_what_sets_a_style_apart_from_the_mean(self):
        """Two styles: their matrices lie on both sides of the identity, whose mean they have but for the ridge."""
        network = new_network(NetworkSpec(engine="msgnet", width=4, filters=1, num_blocks=1), seed=0)
        styles = [torch.rand(1, 3, 32, 32) * scale for scale in (1.0, 0.4)]
        begin_as_identity(network, styles)
        with torch.no_grad():
            matrices = [network.comatch.matrix(network.style_gram(style * LEVELS))[0] for style in styles]
        mean = torch.stack(matrices).mean(0)
        assert torch.linalg.eigvals(mean).real.max() == pytest.approx(1, abs=0.02)
        assert torch.linalg.eigvals(mean).real.min() > 0
        assert not torch.allclose(matrices[0], matrices[1], atol=0.01)

    def test_comatch_moves_by_the_same_share_as_other_weights(self, tmp_path):
        trainer = FastTrainer(task=task_of(tmp_path, "msgnet"))
        before = weights_of(trainer)
        for step in range(2):  # the first one has next to no learning rate
            trainer.step(crops_of(step))
        after = weights_of(trainer)

        def share(name):
            return float((after[name] - before[name]).norm() / before[name].norm())

        assert 0.1 < share("model.1.weight") / share("model.0.3.conv_block.2.weight") < 10


class TestStepSpec:
    SPEC = StepSpec(steps=25, batch_size=1, lr=1.0, warmup_steps=4, log_every=10)

    def test_records_by_hand(self):
        assert [self.SPEC.num_records(done) for done in (0, 10, 20, 25)] == [0, 1, 2, 3]
        assert [done for done in range(1, 26) if self.SPEC.is_due(10, done)] == [10, 20, 25]

    def test_the_learning_rate_rises_and_falls(self):
        factors = [self.SPEC.factor(step) for step in range(25)]
        assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert factors[4:] == sorted(factors[4:], reverse=True)
        assert factors[-1] < 0.02
