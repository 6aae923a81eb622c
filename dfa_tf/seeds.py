"""Independent seeds from one."""

import hashlib


def derived_seed(seed, purpose):
    """A seed (0 <= s < 2^31) for one purpose, "search/connectors" say, that follows from `seed`."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
