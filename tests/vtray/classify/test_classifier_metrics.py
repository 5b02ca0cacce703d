import json
import math
import warnings

import cv2
import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional import classification as torch_metrics
from torchvision import models

from vtray.classify.calibration import expected_calibration_error
from vtray.classify.metrics import Tally
from vtray.errors import WeightsError
from vtray.images import decode

SIZE_PX = 96
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def tally(logits, labels):
    return Tally.of(np.asarray(logits, np.float64), np.asarray(labels, np.int64))


def drawn(seed, num_rows=200, num_classes=7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_rows)
    logits = rng.normal(size=(num_rows, num_classes)) * 3
    logits[np.arange(num_rows), labels] += 2
    return logits, labels


@pytest.fixture(scope="module")
def network(fixtures):
    network = models.mobilenet_v2(weights=None)
    network.load_state_dict(torch.load(fixtures / "weights/mobilenet_v2_imagenet.pth", weights_only=True))
    return network.eval()


@pytest.fixture(scope="module")
def real(fixtures, network):
    """Logits of 30 photographs; the label is what the network sees in the mirrored one, so most are right."""
    paths = sorted((fixtures / "datasets/grocery10/test").glob("*/*.jpg"))[::4][:30]
    images = [decode(path.read_bytes()).image for path in paths]
    small = np.stack([cv2.resize(image, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA) for image in images])
    pixels = ((torch.from_numpy(small) / 255 - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network(pixels), network(pixels.flip(3)).argmax(1)


@pytest.fixture(params=["1000 classes", "10 classes"])
def case(request, real):
    logits, labels = real
    if request.param == "1000 classes":
        return logits, labels
    columns = logits.mean(0).argsort(descending=True)[:10]
    return logits[:, columns], torch.arange(30) % 10  # mostly wrong


# against torchmetrics and scikit-learn, on real logits


def test_shares_of_right_rows_equal_both_libraries(case):
    logits, labels = case
    t = Tally.of(logits, labels)
    num_classes = logits.shape[1]
    assert t.count == 30
    assert 0 < t.top1 < t.top5 <= 1
    for share, top_k in ((t.top1, 1), (t.top5, 5)):
        theirs = torch_metrics.multiclass_accuracy(logits, labels, num_classes, average="micro", top_k=top_k)
        assert share == pytest.approx(float(theirs), abs=1e-7)
        classes = np.arange(num_classes)
        sklearns = sklearn_metrics.top_k_accuracy_score(labels, logits, k=top_k, labels=classes)
        assert share == sklearns


def test_the_confusion_and_the_scores_of_each_class_equal_both_libraries(case):
    logits, labels = case
    t, predicted, num_classes = Tally.of(logits, labels), logits.argmax(1), logits.shape[1]
    classes = np.arange(num_classes)
    assert np.array_equal(t.confusion, sklearn_metrics.confusion_matrix(labels, predicted, labels=classes))
    theirs = torch_metrics.multiclass_confusion_matrix(logits, labels, num_classes)
    assert np.array_equal(t.confusion, theirs.numpy())
    scores = t.per_class
    ours = (scores.precision, scores.recall, scores.f1, scores.support)
    sklearns = sklearn_metrics.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    for mine, its in zip(ours, sklearns, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-15)
    for name in ("precision", "recall", "f1_score"):
        its = getattr(torch_metrics, f"multiclass_{name}")(logits, labels, num_classes, average="none")
        np.testing.assert_allclose(getattr(scores, name.removesuffix("_score")), its, atol=1e-6)


def test_nll_equals_scikit_learn_and_torch(case):
    logits, labels = case
    nll = Tally.of(logits, labels).nll
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without a row
        shares = logits.double().softmax(1).numpy()
        theirs = sklearn_metrics.log_loss(labels, shares, labels=np.arange(logits.shape[1]))
    assert nll == pytest.approx(theirs, rel=1e-12)
    assert nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits.double(), labels)), rel=1e-13)


def test_ece_equals_torchmetrics_and_our_own_from_probabilities(case):
    logits, labels = case
    ece = Tally.of(logits, labels).ece
    shares = logits.double().softmax(1)
    theirs = torch_metrics.multiclass_calibration_error(shares, labels, logits.shape[1], n_bins=15, norm="l1")
    assert ece > 0.01
    assert ece == pytest.approx(float(theirs), abs=1e-7)  # they add in float32
    assert ece == pytest.approx(expected_calibration_error(shares, labels), abs=1e-12)


# tallies add


def same(one, other):
    return one.to_json() == other.to_json()


@pytest.mark.parametrize("num_parts", [2, 3, 41, 200])
def test_a_tally_is_the_same_to_the_bit_for_any_parts_in_any_order(num_parts):
    logits, labels = drawn(5)
    whole = tally(logits, labels)
    rng = np.random.default_rng(num_parts)
    parts = [tally(logits[rows], labels[rows]) for rows in np.array_split(rng.permutation(200), num_parts)]
    assert same(sum(parts, Tally.zero(7)), whole)
    assert same(sum(parts[::-1], Tally.zero(7)), whole)
    assert sum(parts, Tally.zero(7)).nll == whole.nll


def test_a_tally_does_not_depend_on_how_logits_lie_in_memory():
    logits, labels = drawn(6)
    assert same(tally(np.asfortranarray(logits), labels), tally(logits, labels))
    assert same(Tally.of(torch.from_numpy(logits), torch.from_numpy(labels)), tally(logits, labels))
    halves = torch.from_numpy(logits).bfloat16()
    assert same(Tally.of(halves, torch.from_numpy(labels)), tally(halves.double(), labels))


def test_a_tally_survives_json_exactly():
    t = tally(*drawn(7))
    again = Tally.from_json(json.loads(json.dumps(t.to_json())))
    assert same(again, t)
    assert again.confusion.dtype == np.int64
    assert again.ece == t.ece
    assert same(again + t, t + t)


def test_json_of_many_classes_holds_only_what_was_counted():
    logits, labels = drawn(8, num_rows=5, num_classes=1000)
    assert len(json.dumps(tally(logits, labels).to_json())) < 2000


def test_the_rounding_of_the_loss_is_far_below_its_float():
    logits, labels = drawn(9)
    log_shares = torch.from_numpy(logits).log_softmax(1).numpy()
    exact = math.fsum(-log_shares[np.arange(200), labels]) / 200
    assert tally(logits, labels).nll == pytest.approx(exact, rel=1e-14)


# cases worked out by hand


def test_two_rows_of_which_one_is_right():
    t = tally([[math.log(3), 0.0], [math.log(3), 0.0]], [0, 1])
    assert t.confusion.tolist() == [[1, 0], [1, 0]]
    assert t.top1 == 0.5
    assert t.nll == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert t.ece == pytest.approx(0.75 - 0.5)
    assert np.flatnonzero(t.bin_count).tolist() == [11]  # 11/15 < 0.75 <= 12/15
    assert t.bin_accuracy[11] == 0.5
    assert t.bin_confidence[11] == pytest.approx(0.75)
    assert t.per_class.precision.tolist() == [0.5, 0.0]
    assert t.per_class.recall.tolist() == [1.0, 0.0]


def test_of_equal_logits_the_first_class_is_taken():
    t = tally(np.zeros((7, 7)), range(7))
    assert t.confusion[:, 0].tolist() == [1] * 7
    assert (t.top1, t.top5) == (1 / 7, 5 / 7)


def test_with_fewer_than_five_classes_the_right_one_is_among_them():
    assert tally(*drawn(1, num_classes=4)).top5 == 1
    assert tally([[0.0]], [0]).top1 == 1


def test_enormous_logits_overflow_nothing():
    t = tally([[1e9, 0.0], [1e9, 0.0]], [1, 1])
    assert t.nll == 1e9
    assert t.ece == 1


def test_no_rows_have_no_shares():
    t = Tally.zero(3)
    assert t.count == 0
    assert all(math.isnan(value) for value in (t.top1, t.top5, t.nll, t.ece))
    assert np.isnan(t.bin_accuracy).all()
    assert t.per_class.f1.tolist() == [0, 0, 0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"labels 0 to 7 for 7 classes"):
        tally(np.zeros((2, 7)), [0, 7])
    with pytest.raises(ValueError, match=r"labels -1 to 0"):
        tally(np.zeros((2, 7)), [0, -1])
    with pytest.raises(ValueError, match=r"\(3,\) for 2 rows"):
        tally(np.zeros((2, 7)), [0, 1, 2])
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        tally(np.zeros(7), [0])
    with pytest.raises(ValueError, match="7 and 8 classes do not add"):
        Tally.zero(7) + Tally.zero(8)
    with pytest.raises(WeightsError, match="NaN or infinity for 1 of 2 images"):
        tally([[0.0, 1.0], [math.nan, 1.0]], [0, 1])
