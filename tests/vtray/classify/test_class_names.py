"""Class names of a data set against the rows of the pretrained head."""

import logging
from collections import Counter

import pytest
import torchvision
from torchvision.models import MobileNet_V2_Weights, get_model_weights, list_models

from vtray.classify.class_names import Match, match_classes, normalized, read_aliases
from vtray.errors import ConfigError

CATEGORIES = tuple(MobileNet_V2_Weights.DEFAULT.meta["categories"])

AMBIGUOUS = (
    *("cardigan", "catamount", "crane", "crawfish", "crayfish", "gong", "grass snake", "harp", "horn", "maillot"),
    *("missile", "panda", "panther", "partridge", "polecat", "sand viper", "sus scrofa", "tub", "wagon"),
)


def match(name, **aliases):
    (only,) = match_classes([name], categories=CATEGORIES, aliases=aliases)
    return only


def faults_of(wanted, aliases=None):
    with pytest.raises(ConfigError) as caught:
        match_classes(wanted, categories=CATEGORIES, aliases=aliases)
    return str(caught.value).splitlines()


def synsets():
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [(wnid, info.label_name_to_description(wnid)) for wnid in info.label_names()]


@pytest.fixture
def alias_file(tmp_path):
    def write(text):
        path = tmp_path / "aliases.yaml"
        path.write_text(text)
        return str(path)

    return write


RACER = {"row": 751, "wnid": "n04037443", "lemma": "racer, race car, racing car"}


@pytest.mark.parametrize(
    "name",
    [
        "n04037443",
        "N04037443",
        "racer",
        "Racer",
        "race car",
        "race_car",
        "racing-car",
        " Racing  Car ",
        "n04037443-x",
    ],
)
def test_wnid_and_every_spelling_of_a_synonym_find_the_row(name):
    assert match(name) == Match(class_name=name, **RACER)


def test_matches_come_in_the_order_of_the_wanted_classes():
    wanted = ["tabby", "oat milk", "espresso", "hotdog"]
    matches = match_classes(wanted, categories=CATEGORIES)
    assert [each.class_name for each in matches] == wanted
    assert [each.row for each in matches] == [281, None, 967, 934]


def test_hotdog_is_not_the_photocopier_that_a_textbook_took_for_it():
    assert match("hot dog").row == 934
    assert CATEGORIES[713] == "photocopier"


def test_all_1000_rows_are_found_by_wnid_and_carry_the_weights_own_category():
    names = synsets()
    matches = match_classes([wnid for wnid, _ in names], categories=CATEGORIES)
    assert [each.row for each in matches] == list(range(1000))
    assert [(each.wnid, each.lemma) for each in matches] == names
    differing = {c for c, (_, lemma) in zip(CATEGORIES, names, strict=True) if c not in lemma.split(", ")}
    assert differing == {"crane bird", "maillot tank suit"}


def test_each_of_the_1000_categories_names_its_own_row_or_is_ambiguous():
    rows = {name: row for row, name in enumerate(CATEGORIES) if normalized(name) not in AMBIGUOUS}
    matches = match_classes(list(rows), categories=CATEGORIES)
    assert [each.row for each in matches] == list(rows.values())
    assert len(matches) == 989  # of the 1000, 11 bear an ambiguous name; crane bird and maillot tank suit do not


def test_every_synonym_is_found_or_one_of_the_19_ambiguous_names():
    counts = Counter(name for _, lemma in synsets() for name in {normalized(each) for each in lemma.split(", ")})
    shared = sorted(name for name, count in counts.items() if count > 1)
    assert tuple(shared) == AMBIGUOUS
    unique = [name for name in counts if name not in AMBIGUOUS]
    assert len(unique) > 1800
    assert all(each.row is not None for each in match_classes(unique, categories=CATEGORIES))


def test_all_torchvision_models_share_these_categories():
    models = list_models(module=torchvision.models)
    lists = {tuple(get_model_weights(model).DEFAULT.meta["categories"]) for model in models}
    assert lists == {CATEGORIES}
    assert len(models) >= 70


def test_all_ambiguous_names_are_refused_at_once_each_with_its_choices():
    faults = faults_of([*AMBIGUOUS, "tabby"])
    assert len(faults) == 19
    assert all(fault.count("n0") == 3 for fault in faults)  # two choices and the example
    crane = next(fault for fault in faults if fault.startswith("class 'crane'"))
    assert "n02012849 (crane bird, crane) or n03126707 (crane)" in crane
    assert "`crane: n02012849`" in crane
    assert "`crane: null`" in crane


@pytest.mark.parametrize(
    ("alias", "row"),
    [("n02012849", 134), ("n03126707", 517), ("crane bird", 134), ("Crane_Bird", 134), (None, None)],
)
def test_an_alias_settles_an_ambiguous_name(alias, row):
    assert match("crane", crane=alias).row == row


def test_an_alias_names_the_class_of_a_name_that_imagenet_has_not():
    found = match("frankfurter-stall", **{"frankfurter-stall": "red hot"})
    assert found == Match(
        class_name="frankfurter-stall", row=934, wnid="n07697537", lemma="hotdog, hot dog, red hot"
    )


def test_an_alias_goes_before_the_name_itself():
    assert match("racer", racer="mountain bike").row == 671
    assert match("racer", racer=None).row is None


@pytest.mark.parametrize("index", [713, "713", " 713 "])
def test_a_bare_index_is_refused_with_the_class_it_would_be(index):
    (fault,) = faults_of(["hotdog"], {"hotdog": index})
    assert "bare index and would mean n03924679 (photocopier)" in fault
    assert fault.startswith("class 'hotdog': ")


@pytest.mark.parametrize("index", [1000, -1])
def test_an_index_beyond_the_head_is_refused_too(index):
    (fault,) = faults_of(["hotdog"], {"hotdog": index})
    assert f"alias {index} is a bare index, and the weights have no such class" in fault


def test_a_class_that_is_called_by_a_number_is_no_index():
    assert match("934").row is None


def test_faults_of_every_kind_come_together():
    faults = faults_of(["crane", "a", "b", "tabby", "c"], {"a": 7, "b": "photocopy", "c": "panda"})
    assert [fault.split(":")[0] for fault in faults] == ["class 'crane'", "class 'a'", "class 'b'", "class 'c'"]
    assert "alias 'photocopy' is no class of the weights; did you mean photocopier" in faults[2]
    assert "n02509815" in faults[3]
    assert "n02510455" in faults[3]


def test_an_alias_for_no_class_of_ours_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        match_classes(["tabby"], categories=CATEGORIES, aliases={"tabbi": "tabby", "tabby": "tiger cat"})
    assert [record.getMessage() for record in caplog.records] == [
        "aliases of classes that the images do not have: tabbi"
    ]


def test_categories_in_another_order_are_refused():
    swapped = (CATEGORIES[1], CATEGORIES[0], *CATEGORIES[2:])
    with pytest.raises(
        ConfigError, match=r"2 classes are not ImageNet's.*0 is 'goldfish', not 'tench, Tinca tinca'"
    ):
        match_classes(["tabby"], categories=swapped)


def test_a_head_of_other_labels_is_matched_by_its_own_names_only():
    labels = ["Oat Milk", "racer", "sour-cream"]
    wanted = ["oat_milk", "Sour Cream", "race car", "n04037443"]
    matches = match_classes(wanted, categories=labels)
    assert [each.row for each in matches] == [0, 2, None, None]
    assert {each.wnid for each in matches} == {None}


def test_alias_file(alias_file):
    uri = alias_file("# ours\nmy-class: n07697537\ncup: coffee mug\ncrane: null\nother:\n")
    assert read_aliases(uri) == {"my-class": "n07697537", "cup": "coffee mug", "crane": None, "other": None}
    assert match("cup", **read_aliases(uri)).row == 504


def test_yaml_leaves_class_names_as_they_stand(alias_file):
    uri = alias_file("no: tabby\n007: espresso\nyes: 'null'\nx: 934\n")
    assert read_aliases(uri) == {"no": "tabby", "007": "espresso", "yes": "null", "x": "934"}
    with pytest.raises(ConfigError, match=r"alias 934 is a bare index and would mean n07697537 \(hotdog, hot dog"):
        match("x", **read_aliases(uri))


def test_an_empty_alias_file_has_no_aliases(alias_file):
    assert read_aliases(alias_file("# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- tabby\n", "not a mapping"),
        ("tabby", "not a mapping"),
        ("a: tabby\nb: [x, y]\n", "line 2: write each class once"),
        ("a: tabby\na: espresso\n", "line 2: write each class once"),
        ("a: {", "not valid YAML"),
    ],
)
def test_a_malformed_alias_file_is_refused(alias_file, text, message):
    with pytest.raises(ConfigError, match=message):
        read_aliases(alias_file(text))


def test_an_alias_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ConfigError, match="no such alias file"):
        read_aliases(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        read_aliases(str(tmp_path / "binary.yaml"))
