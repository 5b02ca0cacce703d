import hashlib

import numpy as np
import pytest

from vtray.seeding import digest_of, rng_for, seed_for


def test_same_names_same_draws():
    assert rng_for(1, "a").integers(2**63) == rng_for(1, "a").integers(2**63)


@pytest.mark.parametrize("other", [("ab", "c"), ("a", "b", "c"), ("abc",), ("a", "bc", ""), (1,), ("1",), ()])
def test_different_names_different_seeds(other):
    assert digest_of("a", "bc") != digest_of(*other)


def test_integers_and_their_text_differ():
    assert seed_for(12) != seed_for("12")
    assert seed_for(1, 2) != seed_for(12)


def test_seed_is_64_bit_and_fixed_for_ever():
    assert 0 <= seed_for("x") < 2**64
    # hash of "s1:x" (kind, length, text): a change here would change every output ever made
    assert digest_of("x") == hashlib.blake2b(b"s1:x", digest_size=32).digest()
    assert seed_for("x") == int.from_bytes(digest_of("x")[:8], "little")


def test_streams_are_unrelated():
    draws = np.array([rng_for(seed, "flip").random() for seed in range(4000)])
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.05
