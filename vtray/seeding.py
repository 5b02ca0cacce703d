"""Random numbers that depend on what is drawn, never on who draws or when.

Every generator is keyed by a hash of names (run seed, source hash, variant, operator), so draws are the same on
any number of workers, in any order, after any retry, and for operators added later.
"""

import hashlib

import numpy as np

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

    Source: Philox 4x64 (Salmon et al. 2011), a counter-based generator: building one costs microseconds.
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest_of(*names)[:16], "little")))
