from dataclasses import replace

import pytest
from style_networks import real_spec, tiny_spec, work_of

from vtray.errors import WeightsError
from vtray.style import probe
from vtray.style.probe import LOSS_TOLERANCE, choose_numerics

ALL = [("fp32", "nchw"), ("fp32", "nhwc"), ("bf16", "nchw"), ("bf16", "nhwc")]


def ways(tried):
    return [(numerics.precision, numerics.layout) for numerics in tried]


@pytest.fixture
def work(tmp_path):
    return work_of(tiny_spec(tmp_path))


@pytest.fixture
def timed(monkeypatch):
    """Replaces the measurement: (seconds, loss) by precision and layout."""

    def script(measured):
        def time(work, extractor):
            return measured[extractor.precision, extractor.layout]

        monkeypatch.setattr(probe, "_time", time)

    return script


def test_all_four_ways_are_tried(work):
    chosen, tried = choose_numerics(work)
    assert ways(tried) == ALL
    assert chosen in tried
    assert all(numerics.seconds > 0 for numerics in tried)


@pytest.mark.parametrize(("precision", "layout"), [("fp32", "nchw"), ("fp32", "nhwc"), ("bf16", "nhwc")])
def test_the_only_allowed_way_is_taken(work, precision, layout):
    chosen, tried = choose_numerics(work, precision=precision, layout=layout)
    assert ways(tried) == ways([chosen]) == [(precision, layout)]


def test_what_is_fixed_stays_fixed(work):
    assert ways(choose_numerics(work, precision="bf16")[1]) == ALL[2:]
    assert ways(choose_numerics(work, layout="nhwc")[1]) == ALL[1::2]


def test_plain_fp32_deviates_by_nothing_and_its_other_layout_by_rounding(work):
    _, (plain, other) = choose_numerics(work, precision="fp32")
    assert plain.deviation == 0
    assert other.deviation < 1e-4


def test_what_the_work_asks_for_does_not_change_what_fp32_is(work):
    rough = replace(work, features=replace(work.features, precision="bf16", layout="nhwc"))
    assert choose_numerics(rough, precision="fp32", layout="nchw")[0].deviation == 0


def test_the_fastest_that_agrees_wins(work, timed):
    seconds_and_loss = {ALL[0]: (4.0, 10.0), ALL[1]: (3.0, 10.0), ALL[2]: (2.0, 10.05), ALL[3]: (1.0, 10.2)}
    timed(seconds_and_loss)
    chosen, tried = choose_numerics(work)
    assert (chosen.precision, chosen.layout) == ("bf16", "nchw")  # the fastest is off by 2 %, this one by half
    assert [numerics.deviation for numerics in tried] == pytest.approx([0, 0, 0.005, 0.02])


def test_a_way_that_the_user_fixed_is_taken_though_its_loss_is_off(work, timed):
    timed({way: (1.0, 10.0 if way[0] == "fp32" else float("nan")) for way in ALL})
    chosen, _ = choose_numerics(work, precision="bf16", layout="nhwc")
    assert (chosen.precision, chosen.layout) == ("bf16", "nhwc")
    assert choose_numerics(work)[0].precision == "fp32"


@pytest.mark.fixtures
@pytest.mark.parametrize("network", ["vgg19_normalised", "squeezenet1_1"])
def test_bf16_agrees_with_fp32_on_real_weights(fixtures, network):
    _, tried = choose_numerics(work_of(real_spec(fixtures, network)))
    assert all(numerics.deviation < LOSS_TOLERANCE for numerics in tried)


def test_weights_that_are_not_there_are_an_error(work):
    with pytest.raises(WeightsError, match="no such weights file"):
        choose_numerics(replace(work, features=replace(work.features, weights_uri="/nowhere/net.pth")))
