"""Several sets of shards as one stream, each with its share of the draws.

for clip in scanshards.mix({"rooms": ("a/scannet-*.tar", 3), "halls": ("b/scannet-*.tar", 1)}, seed=7): ...

Draws are numbered without end; epoch e holds draws e * length to (e + 1) * length - 1. Which set a draw takes
from is a pure function of (seed, epoch, position), and so is the sample: a set's draws go through all of its
samples in the order of `stream(seed, epoch=0)`, then through all in that of epoch 1, and so on, whatever the
epochs of the mixture are. So no sample comes twice before its set is used up, also across epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import xxhash

from scanshards.clip import ReadOptions
from scanshards.files import Urls
from scanshards.remote import RemoteOptions
from scanshards.shardfile import SampleRef
from scanshards.stream import ClipStream, fingerprint, global_order, list_samples, new_stream, start_of

_BLOCK = 32
"""Draws within which sets are shuffled: without that, 3:1 on 4 ranks would give one rank all of the 1."""


def mix(
    sets: Mapping[str, tuple[Urls, float]],
    *,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    state: dict[str, Any] | None = None,
    length: int | None = None,
    batch_size: int = 1,
    verify: bool = True,
    fields: Sequence[str] | None = None,
    remote: RemoteOptions | None = None,
) -> ClipStream:
    """One epoch, or the rest of it, of a weighted mixture: name -> (shards, weight).

    length: draws in an epoch; None = as many as all sets have samples together. In any run of epochs, and at
    every 32nd draw of an epoch, a set has had its share (weight / sum of weights) of all draws, but for
    rounding: half a draw for each set. The other arguments, the state and the errors are those of `stream`.
    The order depends on names, weights and samples, not on the order in which the sets are given.
    """
    options = ReadOptions.of(verify, fields, remote)
    names = sorted(sets)
    weights = whole_weights({name: sets[name][1] for name in names})
    samples = [list_samples(sets[name][0], options.remote) for name in names]
    length = sum(map(len, samples)) if length is None else length
    if length < 1:
        raise ValueError(f"length: got {length}, expected at least one draw in an epoch")
    parts = [f"{name} {w} {fingerprint(s)}" for name, w, s in zip(names, weights, samples, strict=True)]
    mark = xxhash.xxh3_64_hexdigest("\n".join([str(length), *parts]).encode())
    start = start_of(length, mark, seed, epoch, state)
    order = MixtureOrder(samples, weights, (start["seed"], start["epoch"], length))
    return new_stream(order, start, (rank, world_size), options, batch_size)


class MixtureOrder:
    """The samples of one epoch of a mixture by position; only the passes in use are kept in memory."""

    def __init__(
        self,
        sets: Sequence[Sequence[SampleRef]],
        weights: Sequence[int],
        epoch: tuple[int, int, int],
    ) -> None:
        """epoch: seed, number of the epoch, draws in an epoch."""
        self._sets = sets
        self._weights = weights
        self._seed, self._epoch, self._length = epoch
        self._block: tuple[int, list[int], list[int]] = (-1, [], [])
        self._passes: dict[int, tuple[int, list[SampleRef]]] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int, /) -> SampleRef:
        which, number = self.draw(position)
        samples = self._sets[which]
        turn, place = divmod(number, len(samples))
        if self._passes.get(which, (-1, []))[0] != turn:
            self._passes[which] = (turn, global_order(samples, self._seed, turn))
        return self._passes[which][1][place]

    def draw(self, position: int) -> tuple[int, int]:
        """(which set, how many draws of that set came before, those of earlier epochs included)."""
        if not 0 <= position < self._length:
            raise IndexError(f"position {position} of an epoch of {self._length} draws")
        block, place = divmod(position, _BLOCK)
        if self._block[0] != block:
            self._block = (block, *self._shuffled(block))
        _, slots, before = self._block
        return slots[place], before[slots[place]] + slots[:place].count(slots[place])

    def _shuffled(self, block: int) -> tuple[list[int], list[int]]:
        """The set of each draw of a block, and how many draws each set had before the block."""
        first = self._epoch * self._length
        ends = block * _BLOCK, min((block + 1) * _BLOCK, self._length)
        before, after = (draws_of_sets(first + end, self._weights) for end in ends)
        slots = [which for which in range(len(before)) for _ in range(after[which] - before[which])]

        def place(i: int) -> bytes:
            return xxhash.xxh3_128_digest(f"{self._seed} {self._epoch} {block} {i}".encode())

        return [slots[i] for i in sorted(range(len(slots)), key=place)], before


def draws_of_sets(num_draws: int, weights: Sequence[int]) -> list[int]:
    """How many of the first num_draws draws each set gets; never falls as num_draws rises.

    The first set gets its share of the draws, rounded; the next its share of what is left; the last the rest.
    """
    counts: list[int] = []
    total = sum(weights)
    for weight in weights:
        count = (2 * num_draws * weight + total) // (2 * total)
        counts.append(count)
        num_draws -= count
        total -= weight
    return counts


def whole_weights(weights: Mapping[str, float]) -> list[int]:
    """Weights as the smallest whole numbers in the same proportion. ValueError: one is not above 0."""
    if not weights:
        raise ValueError('no sets given, expected for example {"rooms": ("a/scannet-*.tar", 3)}')
    fractions: list[Fraction] = []
    for name, weight in weights.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight of {name!r}: got {weight!r}, expected a number above 0")
        fractions.append(Fraction(repr(float(weight)) if isinstance(weight, float) else weight))
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    return [weight // math.gcd(*whole) for weight in whole]
