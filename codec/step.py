"""One step of the search, stated once: for the encoder (`refine.py`) and for training under it (`training/written.py`).

Floor 6, below lossy.py. What is minimised is J = R + λD: R the code length of the symbols in bits, D the squared error
of the picture in 8-bit levels (mean over the channels, summed over the pixels), λ the model's own trade-off at the
rate, times `slope`.

Rate–distortion optimised quantisation. A latent at offset e from its mean costs, as symbol k,
    β·bits(k) + h (e - o(k))²,
with bits(k) from the coder's own tables (`code_lengths`), o(k) what k stands for (`quantiser.py`), and h half the
curvature of λD: guessed from the inverse gains, or measured by sending random signs backwards through the synthesis
(Hutchinson 1990). Rounding minimises the second term alone.

Iterated inference. That cost assumes that the offset's target y is best for the picture, which the amortised y is not: it
knows nothing of what rounding did to the latents around. An iteration corrects the target:
    y ← y + a clip(ŷ - g / 2h - y),
with ŷ the latents as decoded now and g the derivative of λD with respect to ŷ, through the synthesis. With a = 1 and
without interaction the next quantisation minimises J exactly in each symbol: unlike straight-through estimates and
stochastic annealing (Yang, Bamler and Mandt 2020) it is a Newton step and needs few iterations.

Only operators and methods that NumPy arrays and tensors share: both pass, and what is elementwise has the same bits.
A weight is that of a squared error of samples in [0, 1] in J, in bits: a number, or an array that broadcasts. h and g
are in proportion to it, so that a weight of 1 gives both per unit, and any cancels in a move. What the constants were
measured on is in docs/log; docs/log/README.md#the-encoders-search has all of the search.
"""

from __future__ import annotations

import numpy as np

from .entropy import coder
from .entropy.distributions import Table

# λ of the search over that of the training objective, at the lowest rate and at the highest: −dR/dD along the curve of
# the weights of run 7, on validation photographs (docs/log/2026-11-21.md#2026-11-21). Run 16 pays 0.8 to 1.05 times its
# λ, and searches worse by that: level 4 saves 9.5 % on four of them, not 10.2
# (docs/log/2026-11-21.md#2026-11-21-fourth-session).
SLOPES = (1.7, 1.2)
# β of the first pass, bits over bits: one that is saved there costs others in later means. Against 0.3, on validation
# photographs, −3.9 % where that pass is all, 0.0 before three looks; 0.7 does as well (docs/log/2026-11-28.md).
RATE_WEIGHT = 0.5
# h over what derivatives show, for others change with a symbol. Level 4 saves 10.2 % on four validation photographs, 8.8
# with 1 and 10.0 with 1.5 (docs/log/2026-11-21.md#2026-11-21-fourth-session).
STIFFNESS = 1.3
# The largest move of a target before it is scaled by a, where 1 is from a symbol to the next: the quadratic model holds
# nearby only. Eight looks save 2.8 %, with 1.5 2.3 (docs/log/2026-11-29.md#2026-11-29-ninth-session).
REGION = 0.8
# In the same unit: how far a target is from what was decoded, for another symbol to be near. Chosen, never compared.
UNDECIDED = 0.25
LEAST = 1e-12  # of a mean of squares, whose logarithm is taken


def slope(rate, highest):
    """λ of the search over the model's, at a rate from 0 to `highest` in any unit (quality, point of the grid)."""
    return SLOPES[0] + (SLOPES[1] - SLOPES[0]) * rate / highest


def error_weight(trade_off):
    """Of a squared error of samples in [0, 1], in bits, by λ: that of one in 8-bit levels, mean over three channels."""
    return trade_off * 255**2 / 3


def guessed_curvature(weight, response, inverse_gain):
    """h before any derivative is known. response: squared change of the picture by a latent over its inverse gain's
    square (`transforms.RESPONSE`)."""
    return weight * response * (inverse_gain * inverse_gain)


def curvature(weight, squares):
    """h, from the squared change of the picture by each latent, which derivatives show."""
    return weight * STIFFNESS * squares


def undecided(y, decoded):
    """Which latents a little might turn into another symbol: bool. The curvature of the others changes no choice."""
    return abs(y - decoded) > UNDECIDED


def by_channel(squares, counted, prior):
    """Mean of squares over the latents that count, by channel, and their sum: both B×C×1×1, from B×C×H×W.

    counted: bool. prior: how many latents the mean over all of a channel counts as, for those where few count.
    """
    everywhere = squares.mean((2, 3), keepdims=True).clip(LEAST)
    total = (counted * squares).sum((2, 3), keepdims=True)
    return (total + prior * everywhere) / (counted.sum((2, 3), keepdims=True) + prior), total


def move(decoded, target, gradient, weight, curvature):
    """The whole move of a target, as far as the quadratic model holds.

    gradient: of a weight of 1. It is written over, for speed, and the result lies in memory in its order.
    """
    gradient *= -weight
    gradient /= 2 * curvature
    gradient += decoded
    gradient -= target
    return gradient.clip(-REGION, REGION)


def moved(target, move, share):
    """The next target: `share` (a) of the way. move: written over; the result lies in memory in its order."""
    move *= share
    move += target
    return move


def code_lengths(tables: list[Table], reach: int) -> np.ndarray:
    """Bits of symbols -reach..reach by each table: float32 [tables, 2·reach + 1]."""
    symbols = np.arange(-reach, reach + 1, dtype=np.int32)
    return np.stack([coder.code_lengths(symbols, table) for table in tables]).astype(np.float32)
