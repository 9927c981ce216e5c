"""Which row of a data set sample k of a run is: a function of the seed, whoever asks and however often."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor

from darkroom.core.seeds import generator, stream

MIXED: Final = 20_000  # samples of shards that are mixed at least


def spread(count: int, *, most: int) -> range:
    """At most `most` of `count` rows, evenly spaced, for a folder's classes stand one after another."""
    return range(0, count, max(1, -(-count // most)))


@final
class Order:
    """Which row sample k of a run is: a new permutation each epoch, a function of (seed, epoch).

    shards: how many rows each shard has, one after another. Shards then come in a new order each epoch, and samples are
    mixed among shards that follow each other and have at least `MIXED` samples together: what is read in a while lies
    in few of them.
    """

    def __init__(self, count: int, *, seed: int, shards: Sequence[int] | None = None, mixed: int = MIXED) -> None:
        self._count, self._seed, self._mixed = count, seed, mixed
        self._shards = None if shards is None or count <= mixed else torch.arange(count).split(list(shards))
        self._epoch, self._rows = -1, torch.empty(0, dtype=torch.long)

    def row(self, index: int) -> int:
        """The row of sample `index`."""
        epoch, place = divmod(index, self._count)
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._drawn(epoch)
        return int(self._rows[place])

    def _drawn(self, epoch: int) -> Tensor:
        draw = generator(self._seed, epoch, purpose="order")
        if self._shards is None:
            return torch.randperm(self._count, generator=draw)
        shards = [self._shards[place] for place in torch.randperm(len(self._shards), generator=draw).tolist()]
        whole, window, held = list[Tensor](), list[Tensor](), 0
        for number, shard in enumerate(shards):
            window.append(shard)
            held += len(shard)
            if held >= self._mixed or number == len(shards) - 1:
                rows = torch.cat(window)
                whole.append(rows[torch.randperm(len(rows), generator=draw)])
                window, held = [], 0
        return torch.cat(whole)


@final
class OrderByGroups:
    """Which row sample k of a run is where each batch is of one group: of pictures of one shape, say.

    groups: rows · shards: of each group, see `Order`. Each group is gone through by permutations of its own, without a
    gap: what does not fill a batch when an epoch ends begins the group's next one. Of b pictures to a batch, a group of
    n has floor((e + 1) n / b) - floor(e n / b) batches in epoch e, and groups come in an order drawn anew each epoch.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        *,
        batch_size: int,
        seed: int,
        shards: Sequence[Sequence[int] | None] | None = None,
    ) -> None:
        self._groups, self._batch, self._seed = groups, batch_size, seed
        known = shards or [None] * len(groups)
        self._orders = [
            Order(len(rows), seed=stream(seed, number, purpose="order of a group"), shards=each)
            for number, (rows, each) in enumerate(zip(groups, known, strict=True))
        ]
        self._epoch, self._batches = -1, list[tuple[int, int]]()
        self._number, self._at = -1, (0, 0)

    def row(self, index: int) -> int:
        """The row of sample `index`."""
        number, place = divmod(index, self._batch)
        if number != self._number:
            self._number, self._at = number, self._batch_at(number)
        group, batch = self._at
        return self._groups[group][self._orders[group].row(batch * self._batch + place)]

    def _batch_at(self, number: int) -> tuple[int, int]:
        """The group of a batch of the run, and which of the group's batches it is."""
        epoch = self._epoch_of(number)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._drawn(epoch)
        return self._batches[number - sum(self._before(epoch))]

    def _before(self, epoch: int) -> list[int]:
        """Batches of each group in all epochs before this one."""
        return [epoch * len(rows) // self._batch for rows in self._groups]

    def _epoch_of(self, number: int) -> int:
        """The epoch of a batch of the run. No epoch has more batches than fit into it, and few may have none."""
        least = number * self._batch // sum(map(len, self._groups))
        after = range(least + 1, least + 3 + self._batch * len(self._groups))
        return least + bisect_right(after, number, key=lambda epoch: sum(self._before(epoch)))

    def _drawn(self, epoch: int) -> list[tuple[int, int]]:
        """The batches of an epoch, each with its group and its number there."""
        first, after = self._before(epoch), self._before(epoch + 1)
        batches = [
            (group, batch)
            for group, (start, end) in enumerate(zip(first, after, strict=True))
            for batch in range(start, end)
        ]
        order = torch.randperm(len(batches), generator=generator(self._seed, epoch, purpose="order of groups"))
        return [batches[place] for place in order.tolist()]
