"""A causal network whose features stay on a canvas: p(x) of a picture as a mixture of logistics for each sample, G, then R, then B.

Before a pixel is known its features h come from 24 neighbours, in units of a local scale, and from predictions. After it is known, a layer
makes g = relu(A h + B e) of them and of the error e of its prediction; h of later pixels gets what lies on the canvas at six places around them,
weighted by channel. So a layer costs once a pixel, and each one sees further than the one before.

Notation: x levels, base a linear prediction of all three channels that has seen none of the pixel, adaptive the predictions of
`least_squares.py`, each of which has seen the channels before it. All B×H×W×3 float32, in levels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBOURS = (  # (dx, dy), nearest first
    (-1, 0), (0, -1), (1, -1), (-1, -1), (-2, 0), (0, -2), (1, -2), (-1, -2), (-2, -1), (2, -2), (-2, -2), (-3, 0),
    (3, -2), (-3, -1), (0, -3), (1, -3), (-1, -3), (2, -3), (-3, -2), (-2, -3), (3, -3), (0, -4), (1, -4), (-1, -4),
)  # fmt: skip
TAPS = 6  # of them are read from the canvas, and tell the local scale
ORDER = (1, 0, 2)  # G, R, B
COMPONENTS = 3
WIDTH, LEVELS, HEAD_WIDTH = 64, 3, 32
TOP, SIDE = 4, 3  # pixels that neighbourhoods reach above and beside
CLIP = 16.0  # normalised differences beyond say no more
FLOOR = 2.0**-20  # of the probability of a level


def _linear(inputs: int, outputs: int, scale: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=scale * inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


class CanvasNetwork(nn.Module):
    """Bits a subpixel of pictures, from what is known of each sample before it; differentiable."""

    def __init__(self):
        super().__init__()
        # Neighbours and errors; G's and two more predictions' news; the scale and the level.
        self.enter = _linear(3 * (len(NEIGHBOURS) + TAPS) + 3 + 1 + 3, WIDTH, 1.0)
        self.remember = nn.ModuleList(_linear(WIDTH + 6, WIDTH, 1.0) for _ in range(LEVELS))
        self.mix = nn.ModuleList(_linear(WIDTH, WIDTH, 0.7) for _ in range(LEVELS))
        self.taps = nn.Parameter(torch.randn(LEVELS, TAPS, WIDTH) * TAPS**-0.5)
        self.heads_in = nn.ModuleList(_linear(WIDTH + 3 * k + 1 + k, HEAD_WIDTH, 1.4) for k in range(3))
        self.heads_out = nn.ModuleList(_linear(HEAD_WIDTH, 3 * COMPONENTS + k, 0.1) for k in range(3))
        with torch.no_grad():
            for head in self.heads_out:
                head.bias[COMPONENTS : 2 * COMPONENTS] = torch.linspace(-0.3, 0.3, COMPONENTS)
                head.bias[2 * COMPONENTS : 3 * COMPONENTS] = torch.linspace(-1.0, 0.5, COMPONENTS)

    def forward(self, x: Tensor, base: Tensor, adaptive: Tensor) -> Tensor:
        """Mean code length of a sample in bits."""
        return self.bits(x, base, adaptive).mean()

    def bits(self, x: Tensor, base: Tensor, adaptive: Tensor) -> Tensor:
        """Code length in bits of each sample, in coding order: B×H×W×3."""
        shape = x.shape[:3]
        padded = _padded(x)
        error = x - base
        errors = torch.cat([_at(error, *place) for place in NEIGHBOURS[:TAPS]], 3)
        exponent = torch.frexp(errors.abs().sum(3, keepdim=True) * 16 + 48)[1].float() - 9
        scale = torch.exp2(exponent)  # a power of two, about the mean error around
        near = torch.cat([_from(padded, *place, *shape[1:]) - base for place in NEIGHBOURS], 3)
        news = torch.cat([adaptive[..., 1:2] - base[..., 1:2], _at(x - adaptive, -1, 0)[..., :2]], 3)
        features = (torch.cat([near, errors, news], 3) / scale).clamp(-CLIP, CLIP)
        h = F.relu(self.enter(torch.cat([features, exponent, base / 128 - 1], 3).flatten(0, 2)))
        known = ((x - adaptive) / scale).clamp(-8, 8).flatten(0, 2)
        known = torch.cat([known, known.abs()], 1)
        for level in range(LEVELS):
            canvas = F.relu(self.remember[level](torch.cat([h, known], 1))).unflatten(0, shape)
            seen = sum(_at(canvas, *place) * self.taps[level, tap] for tap, place in enumerate(NEIGHBOURS[:TAPS]))
            h = F.relu(h + self.mix[level](seen.flatten(0, 2)))
        flat = [part.flatten(0, 2) for part in (x, base, adaptive, scale)]
        return torch.stack([self._bits(k, h, *flat) for k in range(3)], 1).unflatten(0, shape)

    def _bits(self, k: int, h: Tensor, x: Tensor, base: Tensor, adaptive: Tensor, scale: Tensor) -> Tensor:
        """Of the k-th channel in coding order: N."""
        channel, before = ORDER[k], list(ORDER[:k])
        inputs = [h]
        if k:
            known = ((x[:, before] - base[:, before]) / scale).clamp(-CLIP, CLIP)
            inputs += [known, known.abs(), known.clamp(-2, 2)]
        inputs.append(((adaptive[:, channel, None] - base[:, channel, None]) / scale).clamp(-CLIP, CLIP))
        missed = ((x[:, before] - adaptive[:, before]) / scale).clamp(-CLIP, CLIP)
        out = self.heads_out[k](F.relu(self.heads_in[k](torch.cat([*inputs, missed], 1))))
        logits, means, log_scales, slopes = out.split((COMPONENTS, COMPONENTS, COMPONENTS, k), 1)
        means = means + (slopes * missed).sum(1, keepdim=True)
        inverse = torch.exp2(-log_scales.clamp(-7, 6)) / scale
        centre = (x[:, channel] - adaptive[:, channel])[:, None] - means * scale
        high = ((centre + 0.5) * inverse).masked_fill((x[:, channel] == 255)[:, None], 40.0)
        low = ((centre - 0.5) * inverse).masked_fill((x[:, channel] == 0)[:, None], -40.0)
        flip = torch.where(high + low > 0, -1.0, 1.0)  # differences of small numbers keep their digits
        mass = (torch.sigmoid(flip * high) - torch.sigmoid(flip * low)).abs()
        probability = (logits.softmax(1) * mass).sum(1) * (1 - 256 * FLOOR) + FLOOR
        return -torch.log2(probability)


def _at(values: Tensor, dx: int, dy: int) -> Tensor:
    """values B×H×W×C of the pixels at (x + dx, y + dy), dy <= 0; zeros outside."""
    height, width = values.shape[1:3]
    return F.pad(values, (0, 0, max(0, -dx), max(0, dx), -dy, 0))[:, :height, max(0, dx) : max(0, dx) + width]


def _padded(x: Tensor) -> Tensor:
    """With what surrounds a picture: 128 above, the first pixel of the row above to the left, a row's last pixel to the right."""
    batch, height, width, channels = x.shape
    out = x.new_full((batch, height + TOP, width + 2 * SIDE, channels), 128)
    out[:, TOP:, SIDE:-SIDE] = x
    out[:, TOP + 1 :, :SIDE] = x[:, :-1, :1]
    out[:, TOP:, -SIDE:] = x[:, :, -1:]
    return out


def _from(padded: Tensor, dx: int, dy: int, height: int, width: int) -> Tensor:
    return padded[:, TOP + dy : TOP + dy + height, SIDE + dx : SIDE + dx + width]
