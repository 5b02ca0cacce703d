"""Heads made of the pretrained rows: exact where a class is re-used, of one scale where it is not."""

import re

import pytest
import torch
from PIL import Image
from torchvision.models import MobileNet_V2_Weights, SqueezeNet1_0_Weights

from vtray.classify.backbone import build_classifier, load_weights_into
from vtray.classify.class_names import Match, match_classes
from vtray.classify.head import HeadRow, check_head, class_means, head_table, new_head, reuse_head
from vtray.errors import ConfigError, InputError
from vtray.weights import load_weights

PHOTOGRAPHS = {  # the class that each shows
    "hot_dog.jpg": "hot dog",
    "chelsea.png": "tabby",
    "coffee.png": "espresso",
    "parrot.jpg": "macaw",
    "owl.jpg": "great grey owl",
}
ROWS = [934, 281, 967, 88, 24]
PRETRAINED = {
    "mobilenet_v2": ("mobilenet_v2_imagenet.pth", MobileNet_V2_Weights.IMAGENET1K_V1),
    "squeezenet1_0": ("squeezenet1_0_imagenet.pth", SqueezeNet1_0_Weights.IMAGENET1K_V1),
}
OTHERS = ["bagel", "lynx", "Egyptian cat", "coffee mug", "cup", "red wine", "lorikeet", "vulture", "cheeseburger"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(backbone="squeezenet1_1", num_classes=12):
    torch.manual_seed(0)
    return build_classifier(backbone, num_classes=num_classes).eval()


def rows_of(classifier):
    head = classifier.head
    return head.weight.detach().flatten(1), None if head.bias is None else head.bias.detach()


def matches_of(*rows):
    return tuple(
        Match(class_name=f"class {number}")
        if row is None
        else Match(class_name=f"class {number}", row=row, wnid="n00000001", lemma="a, b")
        for number, row in enumerate(rows)
    )


@pytest.fixture(scope="module", params=PRETRAINED)
def pretrained(request, fixtures):
    """The classifier with its ImageNet head, and the five photographs as the weights want them."""
    file, entry = PRETRAINED[request.param]
    classifier = build_classifier(request.param, num_classes=1000).eval()
    load_weights_into(classifier, load_weights(str(fixtures / "weights" / file)).tensors, uri=file, head=True)
    prepare = entry.transforms()
    images = [Image.open(fixtures / "content" / name).convert("RGB") for name in PHOTOGRAPHS]
    return classifier, torch.stack([prepare(image) for image in images]), entry.meta["categories"]


@pytest.fixture
def original(pretrained):
    """As `pretrained`, with the ImageNet head back afterwards."""
    head = pretrained[0].head
    yield pretrained
    pretrained[0].replace_head(head)


# re-used rows ----------------------------------------------------------------------------------------------------


def test_reused_head_is_the_original_restricted_to_the_classes(original):
    classifier, pixels, categories = original
    wanted = [*PHOTOGRAPHS.values(), *OTHERS]
    with torch.inference_mode():
        before = classifier(pixels)
        matches = match_classes(wanted, categories=categories)
        restricted = before[:, [match.row for match in matches]]
        reuse_head(classifier, matches, means=None, generator=generator())
        after = classifier(pixels)
    assert after.shape == (5, 14)
    assert torch.equal(after.argmax(1), restricted.argmax(1))
    # the same products; a smaller matrix is only added up in another order
    torch.testing.assert_close(after, restricted, rtol=0, atol=2e-5)
    assert after[:, :5].argmax(1).tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]  # of all 14 the tabby looks more like an Egyptian cat


def test_reused_rows_have_the_bytes_of_the_originals(original):
    classifier, _, categories = original
    weight, bias = rows_of(classifier)
    matches = match_classes(list(PHOTOGRAPHS.values()), categories=categories)
    rows = reuse_head(classifier, matches, means=None, generator=generator())
    assert [row.row for row in rows] == ROWS
    assert {row.source for row in rows} == {"reused"}
    assert torch.equal(rows_of(classifier)[0], weight[ROWS])
    assert torch.equal(rows_of(classifier)[1], bias[ROWS])


def test_imprinted_rows_find_new_classes_and_leave_the_old_ones_alone(original):
    """Four photographs keep their rows; the class of the fifth is imprinted from it, and each is still found."""
    classifier, pixels, categories = original
    matches = match_classes(["hot dog", "tabby", "my cup", "macaw", "great grey owl"], categories=categories)
    means = class_means(classifier, [(pixels, torch.arange(5))], 5)
    rows = reuse_head(classifier, matches, means=means, generator=generator())
    assert [row.source for row in rows] == ["reused", "reused", "imprinted", "reused", "reused"]
    with torch.inference_mode():
        assert classifier(pixels).argmax(1).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_rows_are_copied_in_the_order_of_the_classes_and_one_may_serve_two(backbone):
    classifier = small(backbone)
    torch.nn.init.normal_(classifier.head.bias)
    weight, bias = rows_of(classifier)
    reuse_head(classifier, matches_of(7, None, 2, 7), means=None, generator=generator())
    new_weight, new_bias = rows_of(classifier)
    assert torch.equal(new_weight[[0, 2, 3]], weight[[7, 2, 7]])
    assert torch.equal(new_bias[[0, 2, 3]], bias[[7, 2, 7]])
    assert classifier.num_classes == 4
    assert all(parameter.requires_grad for _, parameter in classifier.head_parameters())
    assert classifier(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


# other rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_new_rows_have_the_mean_bias_of_the_copied_ones(backbone):
    classifier = small(backbone)
    torch.nn.init.normal_(classifier.head.bias)
    _, bias = rows_of(classifier)
    rows = reuse_head(classifier, matches_of(3, None, 8, None), means=None, generator=generator())
    torch.testing.assert_close(rows_of(classifier)[1][[1, 3]], bias[[3, 8]].mean().repeat(2))
    assert [row.source for row in rows] == ["reused", "random", "reused", "random"]


def test_random_rows_are_as_small_as_those_of_a_new_head():
    classifier = small()
    reuse_head(classifier, matches_of(3, *[None] * 30), means=None, generator=generator())
    assert rows_of(classifier)[0][1:].std().item() == pytest.approx(0.01, rel=0.05)


def spread(weight, means):
    """The root mean square of what the logits do from class to class."""
    logits = means @ weight.T
    return (logits - logits.mean(0)).square().mean().sqrt()


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_logits_of_imprinted_rows_vary_as_much_as_those_of_the_pretrained_rows(backbone):
    classifier = small(backbone)
    weight, _ = rows_of(classifier)
    means = torch.rand(6, classifier.num_features, generator=generator(1)) * 40
    rows = reuse_head(classifier, matches_of(*[None] * 6), means=means, generator=generator())
    torch.testing.assert_close(spread(rows_of(classifier)[0], means), spread(weight, means), rtol=1e-4, atol=0)
    assert {row.source for row in rows} == {"imprinted"}


def test_imprinted_rows_follow_the_copied_rows_not_the_others():
    def imprinted_norm(gain):
        classifier = small()
        weight, _ = rows_of(classifier)
        weight[5] *= gain
        means = torch.rand(3, classifier.num_features, generator=generator(1))
        reuse_head(classifier, matches_of(None, 5, None), means=means, generator=generator())
        return rows_of(classifier)[0][0].norm()

    torch.testing.assert_close(imprinted_norm(3.0), 3 * imprinted_norm(1.0))


def test_imprinted_directions_by_hand():
    """Means (1, 1) and (1, -1) in the first two features share the first, so what is left is the second."""
    classifier = small()
    means = torch.zeros(2, classifier.num_features)
    means[:, 0] = 1
    means[:, 1] = torch.tensor([1.0, -1.0])
    reuse_head(classifier, matches_of(None, None), means=means, generator=generator())
    weight, _ = rows_of(classifier)
    torch.testing.assert_close(
        torch.nn.functional.normalize(weight)[:, :3], torch.tensor([[0, 1.0, 0], [0, -1, 0]])
    )


def test_an_imprinted_row_is_blind_to_what_all_classes_share():
    classifier = small(num_classes=20)
    means = torch.rand(6, classifier.num_features, generator=generator(2)) + 1
    reuse_head(classifier, matches_of(*[None] * 6), means=means, generator=generator())
    weight, _ = rows_of(classifier)
    logits = means @ weight.T
    assert logits.argmax(1).tolist() == list(range(6))
    assert float((weight @ means.mean(0)).abs().max()) < 1e-4 * float(logits.diag().min())


def test_random_rows_come_from_the_generator_alone():
    def weight_of(seed):
        classifier = small()
        state = torch.get_rng_state()
        reuse_head(classifier, matches_of(1, None, None), means=None, generator=generator(seed))
        assert torch.equal(torch.get_rng_state(), state)
        return rows_of(classifier)[0]

    assert torch.equal(weight_of(5), weight_of(5))
    assert not torch.equal(weight_of(5)[1], weight_of(6)[1])
    assert torch.equal(weight_of(5)[0], weight_of(6)[0])


def test_a_head_without_bias_stays_without():
    classifier = small()
    classifier.replace_head(torch.nn.Conv2d(classifier.num_features, 9, 1, bias=False))
    weight, _ = rows_of(classifier)
    means = torch.rand(2, classifier.num_features, generator=generator())
    reuse_head(classifier, matches_of(4, None), means=means, generator=generator())
    assert classifier.head.bias is None
    assert torch.equal(rows_of(classifier)[0][0], weight[4])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rows_are_exact_in_every_precision(dtype):
    classifier = small().to(dtype)
    weight, _ = rows_of(classifier)
    reuse_head(classifier, matches_of(4, None), means=None, generator=generator())
    assert rows_of(classifier)[0].dtype == dtype
    assert torch.equal(rows_of(classifier)[0][0], weight[4])


def test_means_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=re.escape("means of shape (3, 512) are not allowed for this head; give (2")
    ):
        reuse_head(small(), matches_of(1, None), means=torch.zeros(3, 512), generator=generator())


# new heads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_new_head(backbone):
    classifier = small(backbone)
    kind, state = type(classifier.head), torch.get_rng_state()
    new_head(classifier, num_classes=30, generator=generator())
    weight, bias = rows_of(classifier)
    assert type(classifier.head) is kind
    assert weight.shape == (30, classifier.num_features)
    assert weight.std().item() == pytest.approx(0.01, rel=0.05)  # of more than 15,000 draws
    assert torch.equal(bias, torch.zeros(30))
    assert torch.equal(torch.get_rng_state(), state)
    new_head(classifier, num_classes=30, generator=generator())
    assert torch.equal(rows_of(classifier)[0], weight)


def test_new_head_keeps_dtype_and_mode():
    classifier = small().double().train()
    new_head(classifier, num_classes=3, generator=generator())
    assert {p.dtype for _, p in classifier.head_parameters()} == {torch.float64}
    assert classifier.head.training


# class means -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_class_means_over_uneven_batches(backbone):
    classifier = small(backbone).train()  # the means are those of eval mode, whatever the mode was
    pixels = torch.rand(7, 3, 64, 64, generator=generator())
    labels = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    means = class_means(classifier, [(pixels[:4], labels[:4]), (pixels[4:], labels[4:])], 3)
    assert classifier.training
    with torch.no_grad():
        features = classifier.eval().features(pixels)
    expected = torch.stack([features[labels == label].mean(0) for label in range(3)])
    assert means.dtype == torch.float32
    assert not means.requires_grad
    torch.testing.assert_close(means, expected, rtol=1e-5, atol=1e-6)


def test_class_means_from_cached_activations_are_the_same():
    classifier = small()
    pixels, labels = torch.rand(4, 3, 64, 64, generator=generator()), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        activations = classifier.prefix(pixels, 5)
    cached = class_means(classifier, [(activations, labels)], 2, start=5)
    assert torch.equal(cached, class_means(classifier, [(pixels, labels)], 2))


def test_a_class_without_images_has_no_mean():
    batch = (torch.rand(2, 3, 64, 64), torch.tensor([0, 2]))
    with pytest.raises(InputError, match=r"no image of classes number \[1, 3\]"):
        class_means(small(), [batch], 4)


# before and after ------------------------------------------------------------------------------------------------


def test_weights_without_a_head_are_refused(fixtures):
    uri = str(fixtures / "weights" / "squeezenet1_1_features.pth")
    with pytest.raises(ConfigError, match=r"no head \(classifier.1.weight is missing\).*set head.init: new"):
        check_head(small(), load_weights(uri).tensors, uri=uri, num_categories=1000)


def test_a_head_of_other_classes_is_refused():
    classifier = small(num_classes=12)
    tensors = classifier.network.state_dict()
    check_head(classifier, tensors, uri="mine.pth", num_categories=12)
    with pytest.raises(
        ConfigError, match=r"mine.pth: its head has 12 rows, but 1000 class names .* head.init: new"
    ):
        check_head(classifier, tensors, uri="mine.pth", num_categories=1000)


def test_head_table():
    rows = (
        HeadRow(
            class_name="racer", source="reused", row=751, wnid="n04037443", lemma="racer, race car, racing car"
        ),
        HeadRow(class_name="oat milk", source="imprinted"),
        HeadRow(class_name="sour cream", source="reused", row=3, lemma="Sour Cream"),
        HeadRow(class_name="juice", source="random"),
    )
    assert head_table(rows).splitlines() == [
        "head: 2 of 4 re-used, 1 imprinted, 1 random",
        "  racer <- 751 (n04037443 'racer, race car, racing car')",
        "  oat milk: imprinted",
        "  sour cream <- 3 ('Sour Cream')",
        "  juice: random",
    ]


def test_crane_is_refused_before_any_row_is_copied(original):
    classifier, _, categories = original
    with pytest.raises(ConfigError, match="class 'crane': ambiguous"):
        match_classes(["tabby", "crane"], categories=categories)
    assert classifier.num_classes == 1000
