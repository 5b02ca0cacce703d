"""Random numbers that depend on what is drawn, never on who draws or when.

Every generator is keyed by a hash of names (run seed, source hash, variant, operator), so draws are the same on
any number of workers, in any order, after any retry, and for operators added later.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

Name = str | int


def digest_of(*names: Name) -> bytes:
    """A 32-byte hash of a sequence of names; ("ab", "c") and ("a", "bc") differ, and so do 1 and "1"."""
    state = hashlib.blake2b(digest_size=32)
    for name in names:
        tag, text = ("i", str(name)) if isinstance(name, int) else ("s", name)
        encoded = text.encode()
        state.update(f"{tag}{len(encoded)}:".encode() + encoded)
    return state.digest()


def seed_for(*names: Name) -> int:
    """A 64-bit seed, 0 <= seed < 2**64, from a sequence of names."""
    return int.from_bytes(digest_of(*names)[:8], "little")


def rng_for(*names: Name) -> np.random.Generator:
    """An independent generator for a sequence of names, such as (variant_seed, 2, "flip").

    Source: PCG64 (O'Neill 2014), state and stream straight from the hash: NumPy would hash it a second time, which
    takes longer than most operators draw.
    """
    seed_sequence: Any = _Hashed(digest_of(*names))  # NumPy's stubs know only its own SeedSequence
    return np.random.Generator(np.random.PCG64(seed_sequence))


class _Hashed(ISeedSequence):
    """Entropy for a bit generator that is uniform already."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[Any]:
        """The first words of the digest; PCG64 asks for four of 64 bits."""
        return np.frombuffer(self._digest, dtype, n_words)
