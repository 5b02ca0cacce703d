"""A small network with batch norm, and batches of noise: enough to train a few steps in a second."""

import hashlib

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vtray.classify.backbone import build_classifier
from vtray.classify.freezing import freeze, frozen_digest
from vtray.classify.loop import Batch, Ranks, Trainer, TrainSpec
from vtray.classify.preprocessing import Preprocessing
from vtray.errors import TrainingDiverged

PREPROCESSING = Preprocessing(
    resize_px=32, crop_px=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear"
)
SMALL = "shufflenet_v2_x0_5"  # conv1, stage2 to stage4, conv5; batch norm everywhere
NUM_CLASSES = 4


def small_classifier(backbone=SMALL, *, seed=0, dropout=None):
    torch.manual_seed(seed)
    return build_classifier(backbone, num_classes=NUM_CLASSES, dropout=dropout)


def noise_batches(count, *, batch=6, seed=1, size=32):
    """Batches of uint8 noise, each class with a brightness of its own, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for number in range(count):
        labels = torch.randint(NUM_CLASSES, (batch,), generator=generator)
        noise = torch.randint(60, (batch, 3, size, size), generator=generator)
        images = (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
        ids = tuple(f"batch{number}/image{i}.jpg" for i in range(batch))
        batches.append(Batch(inputs=images, labels=labels, image_ids=ids))
    return batches


def spec_for(**values):
    return TrainSpec(**({"epochs": 2, "steps_per_epoch": 3, "batch_size": 6, "lr": 0.01} | values))


def trainer_for(classifier, spec, **options):
    return Trainer(classifier, spec, preprocessing=PREPROCESSING, **options)


def digest_of_network(classifier):
    """SHA-256 over the bytes of all parameters and buffers."""
    state = hashlib.sha256()
    for name, tensor in classifier.network.state_dict().items():
        state.update(name.encode())
        state.update(tensor.contiguous().numpy().tobytes())
    return state.hexdigest()


def cut(batch, *ends):
    """A batch in parts that end there, and the rest."""
    starts, ends = (0, *ends), (*ends, len(batch.labels))
    return [
        Batch(inputs=batch.inputs[a:b], labels=batch.labels[a:b], image_ids=batch.image_ids[a:b])
        for a, b in zip(starts, ends, strict=True)
    ]


# two processes ---------------------------------------------------------------------------------------------------


def run_rank(rank, size, scenario, folder):
    """A process of `size` that train together over gloo: puts what `scenario(ranks)` returns into the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    try:
        ranks = Ranks(rank=rank, size=size, sum=_sum)
        torch.save(scenario(ranks), folder / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def _sum(tensor):
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def gradients_of(classifier, spec, batches, **options):
    """The gradients of one optimizer step with all batch norms in eval mode."""
    trainer = trainer_for(classifier, spec, **options)
    classifier.eval()
    trainer.train_step(batches, factor=1.0, place=(0, 0))
    return [parameter.grad for parameter in classifier.parameters() if parameter.requires_grad]


GRADIENT_SPECS = {
    "plain": {},
    "weighted": {"class_weights": (0.2, 1.0, 3.0, 0.7), "label_smoothing": 0.1},
    "accumulated": {"accumulate": 2, "class_weights": (0.2, 1.0, 3.0, 0.7)},
}


def whole_batches():
    return noise_batches(2, batch=16)


def two_ranks(ranks):
    """All that the tests of two ranks look at, as the processes take seconds to start."""
    mine = [cut(batch, 8)[ranks.rank] for batch in whole_batches()]
    options = {"wrap": DistributedDataParallel, "ranks": ranks}
    gradients = {}
    for name, values in GRADIENT_SPECS.items():
        classifier = partly_frozen()
        spec = spec_for(batch_size=16, optimizer="sgd", **values)
        gradients[name] = gradients_of(classifier, spec, mine[: spec.accumulate], **options)
    return {"gradients": gradients, "epoch": _epoch(mine, options), "diverged": _diverged(mine, options)}


def partly_frozen():
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 1}))
    return classifier


def _epoch(batches, options):
    classifier = partly_frozen()
    before = frozen_digest(classifier)
    spec = spec_for(epochs=1, steps_per_epoch=2, batch_size=16, ema_decay=0.9)
    trainer = trainer_for(classifier, spec, **options)
    metrics = trainer.train_epoch(0, batches)
    return {
        "loss": metrics.loss,
        "accuracy": metrics.accuracy,
        "images": metrics.images,
        "digest": digest_of_network(classifier),
        "average": digest_of_network(trainer.evaluation_model),
        "frozen stays": frozen_digest(classifier) == before,
    }


def _diverged(batches, options):
    """What each rank says if the second one alone meets a loss that is not finite."""
    classifier = partly_frozen()
    trainer = trainer_for(classifier, spec_for(epochs=1, steps_per_epoch=2, batch_size=16), **options)
    if options["ranks"].rank == 1:
        classifier.head.register_forward_hook(lambda head, inputs, logits: logits * torch.nan)
    try:
        trainer.train_epoch(0, batches)
    except TrainingDiverged as error:
        return str(error)
    return ""
