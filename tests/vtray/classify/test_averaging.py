import pytest
import torch
from training_support import digest_of_network, noise_batches, small_classifier, spec_for, trainer_for

from vtray.classify.averaging import WeightAverage, put_back
from vtray.classify.freezing import freeze, frozen_tensors, trained_tensors
from vtray.errors import ConfigError


def moved(classifier, amount):
    with torch.no_grad():
        for tensor in trained_tensors(classifier).values():
            tensor.add_(amount if tensor.is_floating_point() else int(amount))


def test_worked_example():
    classifier = small_classifier()
    average = WeightAverage(classifier, decay=0.15)
    bias = classifier.head.bias
    start = bias.detach().clone()
    moved(classifier, 1)
    average.update()  # keeps 0.1 = (1 + 0) / (10 + 0)
    torch.testing.assert_close(average.classifier.head.bias, 0.1 * start + 0.9 * (start + 1))
    moved(classifier, 1)
    average.update()  # keeps 0.15, as 2 / 11 would be more
    torch.testing.assert_close(average.classifier.head.bias, 0.15 * (start + 0.9) + 0.85 * (start + 2))


def test_averages_equal_the_formula_over_a_training():
    classifier = small_classifier()
    trainer = trainer_for(classifier, spec_for(steps_per_epoch=1, epochs=5, ema_decay=0.3))
    expected = {name: tensor.double() for name, tensor in trained_tensors(classifier).items()}
    for step, batch in enumerate(noise_batches(5)):
        trainer.train_epoch(step, [batch])
        kept = min(0.3, (1 + step) / (10 + step))
        for name, tensor in trained_tensors(classifier).items():
            expected[name] = kept * expected[name] + (1 - kept) * tensor.double()
    found = trained_tensors(trainer.evaluation_model)
    for name, tensor in expected.items():
        if found[name].is_floating_point():
            torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-6)
        else:
            assert int(found[name]) == 5, "batch counts are copied"


def test_frozen_tensors_are_shared_and_trained_ones_are_not():
    classifier = small_classifier()
    freeze(classifier, frozenset({0, 1}))
    average = WeightAverage(classifier, decay=0.9)
    shared = frozen_tensors(average.classifier)
    assert shared
    assert all(shared[name] is tensor for name, tensor in frozen_tensors(classifier).items())
    own = trained_tensors(average.classifier)
    assert all(own[name].data_ptr() != each.data_ptr() for name, each in trained_tensors(classifier).items())


def test_making_an_average_leaves_the_trained_classifier_as_it_is():
    classifier = small_classifier().train()
    freeze(classifier, frozenset({0}))
    wanted = {name: each.requires_grad for name, each in classifier.named_parameters()}
    average = WeightAverage(classifier, decay=0.9)
    assert {name: each.requires_grad for name, each in classifier.named_parameters()} == wanted
    assert classifier.training
    assert not average.classifier.training
    assert not any(each.requires_grad for each in average.classifier.parameters())


def test_state_goes_on_where_it_was():
    def make():
        classifier = small_classifier()
        return classifier, WeightAverage(classifier, decay=0.9)

    (first, one), (second, two) = make(), make()
    moved(first, 1)
    one.update()
    moved(second, 1)
    two.load_state_dict(one.state_dict())
    for classifier, average in ((first, one), (second, two)):
        moved(classifier, 2)
        average.update()
    assert digest_of_network(one.classifier) == digest_of_network(two.classifier)


def test_a_state_is_a_snapshot():
    classifier = small_classifier()
    average = WeightAverage(classifier, decay=0.9)
    state = average.state_dict()
    before = {name: tensor.clone() for name, tensor in state["tensors"].items()}
    moved(classifier, 1)
    average.update()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state["tensors"].items())


def test_tensors_of_another_network_are_refused_before_anything_is_written():
    tensors = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(ConfigError, match=r"2 tensors differ \(b, c\); resume with the config that wrote it"):
        put_back({"a": torch.ones(2), "b": torch.ones(4), "c": torch.ones(1)}, tensors)
    assert not tensors["a"].any()
