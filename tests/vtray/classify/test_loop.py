import dataclasses
import io
import math

import pytest
import torch
import torch.multiprocessing as mp
from torch.nn import functional
from training_support import (
    GRADIENT_SPECS,
    NUM_CLASSES,
    PREPROCESSING,
    cut,
    digest_of_network,
    gradients_of,
    noise_batches,
    partly_frozen,
    run_rank,
    small_classifier,
    spec_for,
    trainer_for,
    two_ranks,
    whole_batches,
)

from vtray.classify.backbone import load_weights_into
from vtray.classify.finite_guard import FiniteGuard
from vtray.classify.freezing import freeze
from vtray.classify.loop import Batch, Trainer
from vtray.classify.mixing import CutMix, MixUp
from vtray.classify.preprocessing import decode_for
from vtray.classify.published import preprocessing_of
from vtray.errors import ConfigError, TrainingDiverged
from vtray.seeding import seed_for
from vtray.weights import load_weights


def weights_of(classifier):
    return [parameter.detach().clone() for parameter in classifier.parameters()]


def assert_same(ours, theirs, tolerance):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


# the reference -------------------------------------------------------------------------------------------------


def reference_steps(network, spec, batches, preprocessing):
    """As torchvision's references/classification/train.py: forward, loss, zero_grad, backward, clip, step.

    Losses of the steps, and how many images were right.
    """
    decayed = [each for each in network.parameters() if each.ndim > 1]
    others = [each for each in network.parameters() if each.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=spec.lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(batches))
    weight = torch.tensor(spec.class_weights) if spec.class_weights else None
    criterion = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=spec.label_smoothing)
    torch.manual_seed(seed_for(spec.seed, "epoch", 0, 0))  # for dropout
    network.train()
    losses, correct = [], 0
    for batch in batches:
        output = network(preprocessing.pixels(batch.inputs))
        loss = criterion(output, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        if spec.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), spec.clip_norm)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        correct += int((output.argmax(1) == batch.labels).sum())
    return losses, correct


# in batches of 8 the mean is exact; batch norm over so few values would make 1e-2 of the last bit in 20 steps
@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("shufflenet_v2_x0_5", {"label_smoothing": 0.1, "weight_decay": 1e-3}),
        ("shufflenet_v2_x0_5", {"class_weights": (0.5, 1.0, 2.0, 1.0)}),
        ("squeezenet1_1", {"label_smoothing": 0.1, "weight_decay": 1e-3, "clip_norm": 1.0}),
    ],
)
def test_20_steps_equal_the_reference_training_step(backbone, options):
    batches = noise_batches(20, batch=8)
    classifier, reference = small_classifier(backbone, dropout=0.0), small_classifier(backbone, dropout=0.0)
    spec = spec_for(epochs=1, steps_per_epoch=20, optimizer="sgd", lr=0.005, head_lr_factor=1, **options)
    metrics = trainer_for(classifier, spec).train_epoch(0, batches)

    losses, correct = reference_steps(reference, spec, batches, PREPROCESSING)
    assert_same(weights_of(classifier), weights_of(reference), 1e-6)
    assert_same(classifier.buffers(), reference.buffers(), 1e-6)
    assert metrics.accuracy == correct / 160
    assert metrics.images == 160
    assert metrics.lr == pytest.approx(0.005 * (1 + math.cos(math.pi * 19 / 20)) / 2)
    if spec.class_weights is None:  # with weights, a mean of means is not the mean
        assert metrics.loss == pytest.approx(sum(losses) / 20, rel=1e-6)


@pytest.mark.fixtures
def test_20_steps_on_photographs_from_pretrained_weights_equal_the_reference(fixtures):
    """mobilenet_v2 as it is, with batch norm and dropout."""
    preprocessing = dataclasses.replace(preprocessing_of("mobilenet_v2"), resize_px=112, crop_px=96)
    weights = load_weights(str(fixtures / "weights" / "mobilenet_v2_imagenet.pth"))
    paths = sorted((fixtures / "datasets" / "grocery10" / "train").glob("*/*"))[::14][:20]
    crops = [torch.tensor(decode_for(preprocessing, path.read_bytes())).permute(2, 0, 1) for path in paths]
    batches = [
        Batch(inputs=torch.stack(crops)[numbers], labels=numbers % NUM_CLASSES, image_ids=())
        for numbers in torch.randint(len(crops), (20, 8), generator=torch.Generator().manual_seed(0))
    ]
    classifier, reference = (small_classifier("mobilenet_v2") for _ in range(2))
    for network in (classifier, reference):
        load_weights_into(network, weights.tensors, uri=weights.uri, head=False)
    spec = spec_for(epochs=1, steps_per_epoch=20, batch_size=8, optimizer="sgd", lr=0.01, head_lr_factor=1)
    metrics = Trainer(classifier, spec, preprocessing=preprocessing).train_epoch(0, batches)
    losses, correct = reference_steps(reference, spec, batches, preprocessing)
    assert_same(weights_of(classifier), weights_of(reference), 1e-6)
    assert_same(classifier.buffers(), reference.buffers(), 1e-6)
    assert metrics.loss == pytest.approx(sum(losses) / 20, rel=1e-6)
    assert metrics.accuracy == correct / 160


# gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weights", [None, (0.2, 1.0, 3.0, 0.7)])
def test_accumulated_batches_equal_the_big_batch(class_weights):
    """Also in parts of different sizes; in eval mode, as batch norm sees only the parts."""
    (big,) = noise_batches(1, batch=9)
    options = {"class_weights": class_weights, "label_smoothing": 0.1, "optimizer": "sgd"}
    whole = gradients_of(partly_frozen(), spec_for(**options), [big])
    parts = gradients_of(partly_frozen(), spec_for(accumulate=3, **options), cut(big, 2, 6))
    assert_same(parts, whole, 1e-6)


def test_the_last_step_of_an_epoch_takes_what_is_left():
    spec = spec_for(steps_per_epoch=5, accumulate=2)
    assert spec.updates_per_epoch == 3
    trainer = trainer_for(small_classifier(), spec)
    batches = iter(noise_batches(7))
    trainer.train_epoch(0, batches)
    assert trainer.updates == 3
    assert len(list(batches)) == 2, "exactly five were consumed"


def test_clipping_bounds_the_gradient():
    def change(clip_norm):
        classifier = small_classifier("squeezenet1_1")
        before = weights_of(classifier)
        spec = spec_for(epochs=1, steps_per_epoch=1, optimizer="sgd", clip_norm=clip_norm, head_lr_factor=1)
        trainer_for(classifier, spec).train_epoch(0, noise_batches(1))
        return torch.stack([(a - b).norm() for a, b in zip(before, weights_of(classifier), strict=True)]).norm()

    assert change(1e-3) == pytest.approx(0.01 * 1e-3, rel=1e-2)  # lr * clip_norm
    assert change(None) > change(1e-3) * 10


def test_mixed_labels_reach_the_loss():
    """With lr 0 nothing else changes the loss; accuracy is that of the images as they are labelled."""
    batches = noise_batches(2)

    def metrics(*mixes):
        classifier = small_classifier()
        spec = spec_for(epochs=1, steps_per_epoch=2, lr=0.0, mixes=mixes)
        return trainer_for(classifier, spec).train_epoch(0, batches)

    plain, never, mixed = metrics(), metrics(MixUp(p=0)), metrics(MixUp(alpha=5.0))
    assert never.loss == plain.loss
    assert mixed.loss != plain.loss
    assert metrics(CutMix()).images == 12


@pytest.mark.parametrize("class_weights", [None, (0.2, 1.0, 3.0, 0.7)])
def test_the_loss_of_mixed_targets_is_the_definition(class_weights, monkeypatch):
    (batch,) = noise_batches(1)
    classifier = small_classifier()
    targets = torch.rand(6, NUM_CLASSES).softmax(1)
    targets = targets * functional.one_hot(batch.labels, NUM_CLASSES).sum(0) / targets.sum(0)
    monkeypatch.setattr(
        "vtray.classify.loop.mix_batch", lambda inputs, shares, mixes, rng: (inputs.clone(), targets)
    )
    spec = spec_for(
        epochs=1,
        steps_per_epoch=1,
        lr=0.0,
        label_smoothing=0.1,
        class_weights=class_weights,
        mixes=(MixUp(),),
    )
    logits = small_classifier().train()(PREPROCESSING.pixels(batch.inputs)).detach()
    weights = torch.tensor(class_weights or [1.0] * NUM_CLASSES)
    smooth = 0.9 * targets + 0.1 / NUM_CLASSES
    expected = -(weights * smooth * logits.log_softmax(1)).sum() / (weights * targets).sum()
    found = trainer_for(classifier, spec).train_epoch(0, [batch])
    assert found.loss == pytest.approx(float(expected), rel=1e-5)


# two processes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes that train together by gloo found, one after the other."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(run_rank, args=(2, two_ranks, folder), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", sorted(GRADIENT_SPECS))
def test_two_workers_by_8_give_the_gradients_of_one_by_16(ranks, name):
    spec = spec_for(optimizer="sgd", **GRADIENT_SPECS[name])
    alone = gradients_of(partly_frozen(), spec, whole_batches()[: spec.accumulate])
    assert len(alone) > 20
    for rank in ranks:
        assert_same(rank["gradients"][name], alone, 1e-5)


def test_two_workers_end_an_epoch_with_one_state(ranks):
    first, second = (rank["epoch"] for rank in ranks)
    assert first == second
    assert first["images"] == 32
    assert first["frozen stays"]
    assert first["digest"] != first["average"]


def test_all_workers_stop_when_one_diverges(ranks):
    first, second = (rank["diverged"] for rank in ranks)
    assert first.startswith("the norm of the gradient is nan in epoch 0, batch 0 (images batch0/image0.jpg")
    assert second.startswith("the loss is nan in epoch 0, batch 0 (images batch0/image8.jpg")


# precision, layout, cached inputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "layout", "tolerance"), [("fp32", "nhwc", 1e-5), ("bf16", "nhwc", 0.05)])
def test_other_numerics_train_nearly_the_same(precision, layout, tolerance):
    batches = noise_batches(1, batch=16)
    losses = []
    for options in ({}, {"precision": precision, "layout": layout}):
        classifier = small_classifier()
        losses.append(trainer_for(classifier, spec_for(steps_per_epoch=1, **options)).train_epoch(0, batches).loss)
        assert all(each.dtype == torch.float32 for each in classifier.parameters())
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)
    nhwc = torch.channels_last
    assert all(each.is_contiguous(memory_format=nhwc) for each in classifier.parameters() if each.ndim == 4)


def test_training_from_activations_equals_training_from_pixels():
    batches = noise_batches(3)

    def trained(start):
        classifier = partly_frozen()
        given = [activations_of(classifier, batch) if start else batch for batch in batches]
        trainer_for(classifier, spec_for(start=start)).train_epoch(0, given)
        return weights_of(classifier)

    assert_same(trained(2), trained(0), 0.0)


def activations_of(classifier, batch, dtype=torch.float32, stop=2):
    with torch.no_grad():
        inputs = classifier.eval().prefix(PREPROCESSING.pixels(batch.inputs), stop).to(dtype)
    return Batch(inputs=inputs, labels=batch.labels, image_ids=batch.image_ids)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
def test_gradients_from_half_precision_activations(dtype, tolerance, precision):
    classifier = partly_frozen()
    (batch,) = noise_batches(1)
    half = activations_of(classifier, batch, dtype)
    found = gradients_of(classifier, spec_for(start=2, precision=precision), [half])
    exact = gradients_of(partly_frozen(), spec_for(), [batch])
    assert all(each.dtype == torch.float32 for each in found)
    error = torch.stack([(a - b).norm() for a, b in zip(found, exact, strict=True)]).norm()
    assert error < (3e-2 if precision == "bf16" else tolerance) * torch.stack([b.norm() for b in exact]).norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_head_learns_from_half_precision_features(dtype):
    classifier = small_classifier()
    freeze(classifier, frozenset(range(5)))
    inputs = torch.rand(6, classifier.num_features).to(dtype)
    batch = Batch(inputs=inputs, labels=torch.arange(6) % NUM_CLASSES, image_ids=("a",) * 6)
    spec = spec_for(epochs=20, steps_per_epoch=1, precision="bf16", start=classifier.last_boundary)
    trainer = trainer_for(classifier, spec)
    losses = [trainer.train_epoch(epoch, [batch]).loss for epoch in range(20)]
    assert losses[-1] < losses[0]


# resuming ------------------------------------------------------------------------------------------------------


def everything_on(**options):
    """Dropout, batch norm, mixing, averages, layer decay, warm-up, clipping, accumulation: all at once."""
    return spec_for(
        epochs=3,
        steps_per_epoch=3,
        accumulate=2,
        weight_decay=0.05,
        layer_decay=0.8,
        warmup_epochs=0.5,
        label_smoothing=0.1,
        mixes=(MixUp(p=0.5), CutMix()),
        clip_norm=1.0,
        ema_decay=0.9,
        class_weights=(1.0, 2.0, 1.0, 0.5),
        **options,
    )


def stored(state):
    """As a checkpoint stores it: torch.save, and back without running any code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("options", [{}, {"layout": "nhwc", "precision": "bf16", "optimizer": "sgd"}])
def test_resuming_at_an_epoch_gives_the_same_bits(options):
    def fresh():
        classifier = small_classifier(dropout=0.3)
        freeze(classifier, frozenset({0}))
        return trainer_for(classifier, everything_on(**options))

    epochs = [noise_batches(3, seed=epoch) for epoch in range(3)]
    undisturbed = fresh()
    for epoch, batches in enumerate(epochs):
        expected = undisturbed.train_epoch(epoch, batches)

    first = fresh()
    first.train_epoch(0, epochs[0])
    state = stored(first.state_dict())
    first.train_epoch(1, epochs[1])  # the state is a snapshot: this must not leak into it
    resumed = fresh()
    torch.manual_seed(99)
    resumed.load_state_dict(state)
    resumed.train_epoch(1, epochs[1])
    found = resumed.train_epoch(2, epochs[2])

    assert digest_of_network(resumed.classifier) == digest_of_network(undisturbed.classifier)
    assert digest_of_network(resumed.evaluation_model) == digest_of_network(undisturbed.evaluation_model)
    assert (found.loss, found.accuracy, found.lr) == (expected.loss, expected.accuracy, expected.lr)
    assert resumed.updates == undisturbed.updates == 6


def test_a_loaded_state_can_be_loaded_again():
    trainer = trainer_for(small_classifier(), spec_for(ema_decay=0.9))
    trainer.train_epoch(0, noise_batches(3))
    state = trainer.state_dict()
    digests = set()
    for _ in range(2):
        trainer.load_state_dict(state)
        trainer.train_epoch(1, noise_batches(3, seed=2))
        digests.add(digest_of_network(trainer.classifier))
    assert len(digests) == 1


def test_the_state_holds_no_frozen_tensor():
    classifier = small_classifier()
    freeze(classifier, frozenset(range(5)))
    state = trainer_for(classifier, spec_for()).state_dict()
    assert set(state["tensors"]) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("seed", "frozen", "options", "message"),
    [
        (1, {0}, {}, "of other frozen weights"),
        (0, {0, 1}, {}, "of other frozen weights"),
        (0, {0}, {"ema_decay": 0.9}, "of another ema_decay"),
    ],
)
def test_states_of_another_training_are_refused(seed, frozen, options, message):
    def make(seed, frozen, options):
        classifier = small_classifier(seed=seed)
        freeze(classifier, frozenset(frozen))
        return trainer_for(classifier, spec_for(**options))

    state = make(0, {0}, {}).state_dict()
    with pytest.raises(ConfigError, match=message):
        make(seed, frozen, options).load_state_dict(state)


def test_another_seed_trains_otherwise():
    digests = set()
    for seed in (0, 0, 1):
        classifier = small_classifier(dropout=0.5)
        trainer_for(classifier, spec_for(seed=seed)).train_epoch(0, noise_batches(3))
        digests.add(digest_of_network(classifier))
    assert len(digests) == 2


# what goes wrong -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_batch_and_leaves_the_weights():
    classifier = small_classifier()
    trainer = trainer_for(classifier, spec_for(steps_per_epoch=4))
    batches = noise_batches(4)

    def given():
        for number, batch in enumerate(batches):
            if number == 2:
                with torch.no_grad():
                    classifier.head.bias[0] = torch.nan
            yield batch

    with pytest.raises(
        TrainingDiverged, match=r"the loss is nan in epoch 0, batch 2 \(images batch2/image0.jpg, "
    ):
        trainer.train_epoch(0, given())
    assert trainer.updates == 2
    assert all(each.isfinite().all() for name, each in classifier.named_parameters() if "fc" not in name)


def test_a_gradient_that_is_not_finite_names_its_batch():
    classifier = small_classifier()
    trainer = trainer_for(classifier, spec_for())
    classifier.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingDiverged, match=r"the norm of the gradient is (nan|inf) in epoch 0, batch 0"):
        trainer.train_epoch(0, noise_batches(3))
    assert all(each.isfinite().all() for each in classifier.parameters())


def test_weights_that_overflow_in_the_last_step_are_seen():
    trainer = trainer_for(small_classifier(), spec_for(epochs=1, steps_per_epoch=1, lr=1e36))
    with pytest.raises(TrainingDiverged, match=r"the norm of the weights is (nan|inf) in epoch 0, batch 0"):
        trainer.train_epoch(0, noise_batches(1))


def test_many_steps_are_looked_at_together_without_losing_a_name():
    guard = FiniteGuard(every=4)
    batches = noise_batches(4)
    for step, value in enumerate((1.0, torch.inf, torch.nan)):
        guard.watch("loss", torch.tensor(value), (7, step), [batches[step]])
        guard.check_if_due()
    guard.watch("loss", torch.tensor(1.0), (7, 3), [batches[3]])
    with pytest.raises(TrainingDiverged, match=r"the loss is inf in epoch 7, batch 1 \(images batch1/image0.jpg"):
        guard.check_if_due()
    guard.check()  # said once


def test_a_batch_of_many_images_is_named_by_the_first():
    guard = FiniteGuard(every=1)
    guard.watch("loss", torch.tensor(torch.nan), (0, 0), noise_batches(2))
    with pytest.raises(TrainingDiverged, match=r"batch1/image1.jpg and 4 more\); lower lr, set clip_norm, or"):
        guard.check_if_due()


def test_batches_that_end_early_are_refused():
    trainer = trainer_for(small_classifier(), spec_for())
    with pytest.raises(ValueError, match="epoch 0: the batches ended after 2 of 3; give a fresh iterator"):
        trainer.train_epoch(0, noise_batches(2))


def test_epochs_come_in_order():
    trainer = trainer_for(small_classifier(), spec_for())
    with pytest.raises(ValueError, match="epoch 1 does not follow 0 optimizer steps; epoch 0 is next"):
        trainer.train_epoch(1, noise_batches(3))


def test_training_learns():
    classifier = small_classifier()
    trainer = trainer_for(classifier, spec_for(epochs=8, steps_per_epoch=4, warmup_epochs=1))
    metrics = [trainer.train_epoch(epoch, noise_batches(4)) for epoch in range(8)]
    assert metrics[0].accuracy < 0.8 < metrics[-1].accuracy
    assert metrics[-1].loss < metrics[0].loss
    assert not trainer.evaluation_model.training
