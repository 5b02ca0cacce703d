"""Which of several trials is the best."""

import json
import math

from vtray.classify.trial_record import TrialRecord, quality, ranked, score
from vtray.manifest import canonical


def record(number, *points, status="complete", keep="best"):
    """A trial with these (top-1, loss) after its epochs."""
    epochs = tuple(
        {"epoch": n, "val_top1": top1, "val_loss": loss, "seconds": 2.0} for n, (top1, loss) in enumerate(points)
    )
    return TrialRecord(
        number=number, digest="d", values={"lr": 1e-3}, frozen=0, status=status, epochs=epochs, keep=keep
    )


def names(records, metric="val_top1"):
    return [each.number for each in ranked(records, metric)]


def test_the_kept_epoch_counts_as_in_a_training():
    rising_and_falling = [(0.5, 1.0), (0.9, 0.4), (0.7, 0.6)]
    assert record(1, *rising_and_falling).kept["val_top1"] == 0.9
    assert record(1, *rising_and_falling, keep="last").kept["val_top1"] == 0.7
    assert record(1, *rising_and_falling).seconds == 6.0


def test_the_loss_decides_between_equal_accuracies_and_the_default_between_equals():
    assert names([record(1, (0.9, 0.5)), record(2, (0.9, 0.4)), record(3, (0.8, 0.1))]) == [2, 1, 3]
    assert names([record(2, (0.9, 0.5)), record(0, (0.9, 0.5)), record(1, (0.9, 0.5))]) == [0, 1, 2]
    assert names([record(1, (0.9, 0.5)), record(2, (0.8, 0.4))], metric="val_loss") == [2, 1]


def test_failed_trials_and_losses_that_are_no_number_come_last_or_not_at_all():
    failed, empty = record(1, (0.99, 0.1), status="failed"), record(2, status="failed")
    broken = record(3, (0.9, math.nan))
    assert names([failed, empty, broken, record(4, (0.9, 5.0))]) == [4, 3]
    assert quality(broken.epochs[0], "val_top1") == (0.9, -math.inf)
    assert score(broken.epochs[0], "val_top1") == 0.9


def test_a_record_is_read_back():
    one = record(3, (0.5, 1.0), (0.6, 0.9))
    assert TrialRecord.from_json(json.loads(canonical(one.to_json()))) == one
    assert one.name == "0003"
