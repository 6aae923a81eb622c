"""Independent seeds derived from one seed."""

import hashlib


def derived_seed(seed: int, purpose: str) -> int:
    """Derives the seed of one purpose.

    Args:
        seed: Seed of the run.
        purpose: What the derived seed is for, "search/connectors" for instance.

    Returns:
        An integer from 0 to 2^31 - 1.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
