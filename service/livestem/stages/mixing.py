"""Chips on a border show two phases at once: how much of each, and so of which they are.

Theory
------
Photons add: a chip that is to a share s of phase A and else of B has the intensities ``s I_A + (1 - s) I_B``, with A
and B taken from the chips nearby that are of one phase. So intensities measure s without bias, but with the noise of
few photons. The picture is quiet, but not linear: a wall may shine, and a descriptor of order does not mix at all.
Therefore **the spectra teach the picture**: over all chips on borders between the same two phases, and the pure ones
on both sides, a ridge regression learns s from the detector level and the descriptors, with the spectra's s as its
teacher. Both estimates are averaged, each by its precision. Without spectra the level alone is taken to mix linearly.

The chip is of A if s > 1/2, and the probability of that is the normal one of s and its error.

Rules
-----
- A chip is on a border if one of its eight neighbours has another label. The others keep theirs.
- Which two phases: of the chip's own and its neighbours' the pair that explains the linear features best.
- A pure chip weighs by its distance, a Gaussian of `_NEAR` chips: a foil's thickness changes over tens of chips, and
  the mean of few chips is noisy; far ones stand in where there is none.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livestem.stages.rows import Floats, Mask

_NEAR = 8.0  # chips, sigma; twice that is the end of them (on the four samples 6 to 12 do as well, 2 does worse)
_FAR_WEIGHT = 1e-3  # of a phase's mean over the field beside those: it counts where there are none
_SHRINK = 0.1  # of covariances towards their diagonals: some have few chips
_LEAST_VARIANCE = 0.02  # of a share read from a picture: no border is straight to better than a seventh of a chip
_FIRST_VARIANCE = 0.05  # guess of that, before it is known
_RIDGE = 5.0  # observations' worth of belief that the share is what the level says
_PURE = 2.0  # weight of all pure chips of a side over all border chips: they fix the ends, not the way between
_LEAST_LENGTH = 1e-6  # squared distance of two phases, in noises: nearer ones cannot be told, whatever the share
_FEWEST = 4  # pure chips of a phase inside the borders; with fewer, all its chips stand for it

Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Linear:
    """What mixes linearly.

    Attributes
    ----------
    level : (N,) detector value, or None without a picture
    counts : (N, L) line intensities, or None without spectra
    """

    level: Floats | None
    counts: Floats | None

    @cached_property
    def stacked(self) -> Floats:
        """(N, L + 1): the level first, where there is one."""
        parts = [x.reshape(len(x), -1) for x in (self.level, self.counts) if x is not None]
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True, eq=False)
class Settled:
    """Labels with their borders settled.

    Attributes
    ----------
    labels : (N,) int
    chips : (B,) the border chips that two phases share
    phases : (B, 2) which two
    probability : (B,) that the first has the larger share
    """

    labels: Labels
    chips: NDArray[np.intp]
    phases: NDArray[np.intp]
    probability: Floats

    def over(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, K) class probabilities with those of the border chips replaced."""
        out = scores.copy()
        out[self.chips] = 0.0
        out[self.chips, self.phases[:, 0]] = self.probability
        out[self.chips, self.phases[:, 1]] = 1.0 - self.probability
        return out


def settle(
    labels: NDArray[np.integer[Any]], linear: Linear, texture: Floats | None, shape: tuple[int, int], valid: Mask
) -> Settled:
    """Decide every chip on a border by its larger part.

    Parameters
    ----------
    labels : (N,) int
        A label map, 0 .. K - 1; negative without data.
    linear : Linear
    texture : (N, T) float64, optional
        What else the picture says of each chip, in any units; used where there are spectra to learn from.
    shape : (rows, cols)
    valid : (N,) bool
        Chips with data.

    Returns
    -------
    Settled
    """
    known = np.where(valid, labels, -1).astype(np.int64)
    count = int(known.max(initial=-1)) + 1
    near = neighbours_of(known, count, shape)
    mine = known[:, None] == np.arange(count)
    border = (known >= 0) & ((near > 0) & ~mine).any(axis=1)
    chips = np.flatnonzero(border)
    pure = _pure_phases(linear.stacked, known, border, count, shape)
    phases = _best_pairs(linear.stacked, chips, pure, ((near > 0) | mine)[chips])
    shared = phases[:, 0] >= 0
    chips, phases = chips[shared], phases[shared]
    probability = np.zeros(len(chips))
    for a, b in np.unique(phases, axis=0):
        mine = (phases == (a, b)).all(axis=1)
        inside = [np.flatnonzero((known == k) & ~border) for k in (a, b)]
        share, variance = _shares(linear, texture, chips[mine], inside, pure, (int(a), int(b)))
        probability[mine] = _normal((share - 0.5) / np.sqrt(variance))
    known[chips] = np.where(probability > 0.5, phases[:, 0], phases[:, 1])
    return Settled(known, chips, phases, probability)


@dataclass(frozen=True, eq=False)
class _Pure:
    """Pure chips: `means` (K, N, M) nearby, `covariance` (K, M, M) about these, `known` (K,) whether there are any."""

    means: Floats
    covariance: Floats
    known: Mask

    def between(self, a: int, b: int) -> Floats:
        """Return (M, M) the covariance of chips that are partly either."""
        mean = (self.covariance[a] + self.covariance[b]) / 2
        return np.asarray((1 - _SHRINK) * mean + _SHRINK * np.diag(np.diag(mean)))


def _pure_phases(x: Floats, labels: Labels, border: Mask, count: int, shape: tuple[int, int]) -> _Pure:
    along, across = (_nearby(side) for side in shape)

    def spread(values: Floats) -> Floats:  # over the chips nearby, column by column
        rows = along @ values.reshape(shape[0], -1)
        smooth = across @ rows.reshape(*shape, -1)
        return np.asarray(smooth.reshape(values.shape))

    width = x.shape[1]
    means = np.zeros((count, len(x), width))
    covariance = np.tile(np.eye(width), (count, 1, 1))
    known = np.zeros(count, bool)
    for k in range(count):
        mine = (labels == k) & ~border
        if np.count_nonzero(mine) < _FEWEST:
            mine = labels == k
        if np.count_nonzero(mine) < 2:
            continue
        known[k] = True
        weight = spread(mine[:, None].astype(np.float64)) + _FAR_WEIGHT
        means[k] = (spread(np.where(mine[:, None], x, 0.0)) + _FAR_WEIGHT * x[mine].mean(axis=0)) / weight
        away = (x - means[k])[mine]
        covariance[k] = away.T @ away / len(away)
        floor = np.finfo(np.float64).eps * (x[mine] ** 2).max(axis=0) + np.finfo(np.float64).tiny
        covariance[k][np.diag_indices(width)] += floor  # of equal chips: no less than their rounding
    return _Pure(means, covariance, known)


@functools.lru_cache(maxsize=4)
def _nearby(side: int) -> Floats:
    """Return (side, side) what each place of a line takes of each other: a normal curve, cut at two sigma."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(np.eye(side), _NEAR, axis=0, mode="constant", truncate=2.0))


def _best_pairs(x: Floats, chips: NDArray[np.intp], pure: _Pure, candidates: Mask) -> NDArray[np.intp]:
    """Return (B, 2) the two phases whose mixture is likeliest for each chip; -1 where there are not two."""
    best = np.full(len(chips), np.inf)
    phases = np.full((len(chips), 2), -1)
    candidates = candidates & pure.known
    for a, b in combinations(range(len(pure.known)), 2):
        some = np.flatnonzero(candidates[:, a] & candidates[:, b])
        if not some.size:
            continue
        of = chips[some]
        surprise = _surprise(x[of], pure.means[a][of], pure.means[b][of], pure.between(a, b))
        better = surprise < best[some]
        best[some[better]] = surprise[better]
        phases[some[better]] = a, b
    return phases


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Chips as mixtures of two phases: (B,) shares of the first, and their variances."""

    share: Floats
    variance: Floats


def _mixture(x: Floats, first: Floats, second: Floats, covariance: Floats) -> _Mixture:
    """Fit (B, M) chips between the pure values beside each, by generalised least squares."""
    inverse = np.linalg.inv(covariance)
    away, apart = x - second, first - second
    weighed = apart @ inverse
    length = np.einsum("ni,ni->n", weighed, apart)
    share = np.einsum("ni,ni->n", weighed, away) / np.maximum(length, np.finfo(np.float64).tiny)
    return _Mixture(share, 1 / np.maximum(length, _LEAST_LENGTH))


def _surprise(x: Floats, first: Floats, second: Floats, covariance: Floats) -> Floats:
    """Return (B,) -2 log likelihoods of chips as the likeliest mixtures of the pure values beside each."""
    share = np.clip(_mixture(x, first, second, covariance).share, 0, 1)[:, None]
    rest = x - second - share * (first - second)
    surprise = np.einsum("ni,ni->n", rest @ np.linalg.inv(covariance), rest) + np.linalg.slogdet(covariance)[1]
    return np.asarray(surprise)


def _shares(
    linear: Linear,
    texture: Floats | None,
    chips: NDArray[np.intp],
    inside: list[NDArray[np.intp]],
    pure: _Pure,
    pair: tuple[int, int],
) -> tuple[Floats, Floats]:
    """Return (B,) the first phase's share of each chip, and its variance."""
    a, b = pair
    covariance = pure.between(a, b)

    def mixture(which: NDArray[np.intp], columns: slice) -> _Mixture:
        x, first, second = (v[which][:, columns] for v in (linear.stacked, pure.means[a], pure.means[b]))
        return _mixture(x, first, second, covariance[columns, columns])

    if linear.level is None or linear.counts is None:
        alone = mixture(chips, slice(None))
        return alone.share, np.maximum(alone.variance, _LEAST_VARIANCE)
    counted = mixture(chips, slice(1, None))
    levels = [mixture(which, slice(0, 1)).share for which in (chips, *inside)]
    described = None if texture is None else [texture[which] for which in (chips, *inside)]
    seen, error = _taught(levels, described, counted)
    precision = 1 / error + 1 / counted.variance
    return (seen / error + counted.share / counted.variance) / precision, 1 / precision


def _taught(levels: list[Floats], described: list[Floats] | None, counted: _Mixture) -> tuple[Floats, float]:
    """Return (B,) shares as the picture shows them once the spectra have taught it, and their variance.

    `levels` and `described` are of the border chips, of the pure ones of the first phase, and of the second.
    """
    parts = [np.stack([np.ones_like(f), f, f * (1 - f)], axis=1) for f in (np.clip(v, -1, 2) for v in levels)]
    if described is not None:
        pure = [rows for rows in described[1:] if len(rows)] or described[:1]
        middle = np.mean([rows.mean(axis=0) for rows in pure], axis=0)
        noise = np.mean([rows.std(axis=0) for rows in pure], axis=0)
        scale = np.divide(1.0, noise, out=np.zeros_like(noise), where=noise > 0)
        parts = [np.concatenate([p, (d - middle) * scale], axis=1) for p, d in zip(parts, described, strict=True)]
    teacher = np.clip(counted.share, -1, 2)
    precision = 1 / (counted.variance + _FIRST_VARIANCE)
    weights = [precision, *(np.full(len(p), _PURE * precision.sum() / max(len(p), 1)) for p in parts[1:])]
    truth = np.concatenate([teacher, np.ones(len(parts[1])), np.zeros(len(parts[2]))])
    rows, weight = np.concatenate(parts), np.concatenate(weights)
    belief = np.zeros(rows.shape[1])
    belief[1] = 1.0  # the share is what the level says
    penalty = np.full(rows.shape[1], _RIDGE / _FIRST_VARIANCE)
    penalty[0] = np.finfo(np.float64).eps * weight.sum()  # the offset is free
    normal = (rows * weight[:, None]).T @ rows + np.diag(penalty)
    learnt = belief + np.linalg.solve(normal, (rows * weight[:, None]).T @ (truth - rows @ belief))
    seen = parts[0] @ learnt
    unexplained = float(np.average((teacher - seen) ** 2 - counted.variance, weights=precision))
    return seen, max(unexplained, _LEAST_VARIANCE)


def neighbours_of(labels: NDArray[np.integer[Any]], count: int, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return (N, count) how many of a chip's eight neighbours have each label; beyond the field there are none."""
    padded = np.pad(labels.reshape(shape), 1, constant_values=-1)
    rows, cols = shape
    near = np.zeros((rows, cols, count), np.int64)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            if (dy, dx) != (1, 1):
                near += padded[dy : dy + rows, dx : dx + cols, None] == np.arange(count)
    return near.reshape(rows * cols, count)


def _normal(z: Floats) -> Floats:
    """Return the normal distribution's probability below z."""
    from scipy.special import ndtr

    return np.asarray(ndtr(z))
