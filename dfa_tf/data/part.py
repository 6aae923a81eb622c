"""The part of each global batch that one process reads."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Part:
    """One of `count` equal parts of each global batch. Part 0 has the first rows.

    Each process of a run reads and decodes its own part. Together they have the batch of one
    process.

    Attributes:
        index: Number of the part, from 0.
        count: Number of parts.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        """Returns the rows of this part in a global batch."""
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)
