"""Analysis and synthesis: pixels <-> latents.

Both are a linear transform (started as the PCA of 16×16 patches) plus a network that corrects it.
The linear path and everything next to the latents runs in float32; the network may run in bfloat16,
because what it adds is small: this keeps the full precision that high rates need.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LossyConfig
from .layers import SLOPE, Down, RateTable, Up, activation, blocks, compress, multiply, pointwise

STRIDE = 16  # pixels a latent position
PATCH = 3 * STRIDE**2
# Squared change of a picture over that of a latent times its inverse gain, when single symbols change by one, by kind of
# transform (measured: 3.5 at low rates to 7 at high ones, where the network makes more of a symbol than the linear path; 1.1 to 0.8).
RESPONSE = {"residual": 5.0, "convolutional": 1.0}


class Analysis(nn.Module):
    """x: B×3×H×W in [0, 1], H and W multiples of 16 -> latents y: B×M×H/16×W/16 in pixel units."""

    def __init__(self, config: LossyConfig):
        super().__init__()
        w4, w8, w16 = config.widths
        n4, n8, n16 = config.analysis_blocks
        self.linear = nn.Parameter(torch.randn(config.latent_channels, PATCH) * PATCH**-0.5)
        self.to_quarter = Down(3, w4, 4)
        self.quarter = blocks(w4, n4)
        self.to_eighth = Down(w4, w8)
        self.eighth = blocks(w8, n8)
        self.rate_scale = RateTable(config.rate_points, w8)
        self.to_sixteenth = Down(w8, w16)
        self.sixteenth = blocks(w16, n16)
        self.head = pointwise(w16, config.latent_channels, scale=0.01)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = x - 0.5
        with torch.autocast(x.device.type, enabled=False):
            y = multiply(F.pixel_unshuffle(x, STRIDE), self.linear[:, :, None, None])
        h = self.quarter(self.to_quarter(4 * x))
        h = self.eighth(self.to_eighth(h))
        h = self.sixteenth(self.to_sixteenth(h * self.rate_scale(t).exp().to(h.dtype)))
        return y + self.head(h).float()


class Synthesis(nn.Module):
    """Latents -> x: B×3×16h×16w, nominally in [0, 1], not clipped.

    The network is a U: it looks at the linear reconstruction at 1/4 and 1/8 and at the latents themselves, and corrects
    the former. (A network that sees the latents alone has to learn the linear transform first, and hardly learned.)
    """

    def __init__(self, config: LossyConfig):
        super().__init__()
        w4, w8, _ = config.widths
        n4, n8, n16 = (*config.synthesis_blocks, 0)[:3]
        self.linear = nn.Parameter(torch.randn(PATCH, config.latent_channels) * PATCH**-0.5)
        self.from_pixels = Down(3, w4, 4)
        self.quarter_in = blocks(w4, n4 // 2)
        self.to_eighth = Down(w4, w8)
        self.sixteenth = blocks(config.latent_channels, n16)
        self.from_latents = Up(config.latent_channels, w8)
        self.rate_scale = RateTable(config.rate_points, w8)
        self.eighth = blocks(w8, n8)
        self.to_quarter = Up(w8, w4)
        self.quarter_out = blocks(w4, n4 - n4 // 2)
        self.head = Up(w4, 3, 4, scale=0.0)  # a new codec is the linear one

    def forward(self, y: Tensor, gained: Tensor, t: Tensor) -> Tensor:
        """y: B×M×h×w in pixel units; gained: the same latents in quantisation steps."""
        with torch.autocast(y.device.type, enabled=False):
            linear = _at_quarter(y, self.linear)
        quarter = self.quarter_in(multiply(linear, 4 * self.from_pixels.mix.weight, self.from_pixels.mix.bias))
        latents = self.sixteenth(compress(gained))
        h = self.to_eighth(quarter).add_(self.from_latents(latents))
        h = self.eighth(h * self.rate_scale(t).exp().to(h.dtype))
        h = self.quarter_out(self.to_quarter(h).add_(quarter))
        return F.pixel_shuffle(linear + self.head.mix(h).float(), 4) + 0.5


def _at_quarter(y: Tensor, linear: Tensor) -> Tensor:
    """Latents B×M×h×w -> what a picture of the patches linear·y, 768 values each, is at 1/4: B×48×4h×4w, channels last."""
    batch, _, height, width = y.shape
    # Row and column at 1/4, then what they hold: colour, row and column in it.
    weight = linear.view(3, 4, 4, 4, 4, -1).permute(1, 3, 0, 2, 4, 5).reshape(PATCH, -1, 1, 1)
    x = multiply(y, weight).permute(0, 2, 3, 1).reshape(batch, height, width, 4, 4 * 48)
    return x.transpose(2, 3).reshape(batch, 4 * height, 4 * width, 48).permute(0, 3, 1, 2)


def _keep_variance(layers: nn.ModuleList) -> None:
    """Initialise strided convolutions so that signals keep their size from end to end (He et al. 2015)."""
    for layer in layers:
        fan_in = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.in_channels * 25 / 4
        nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5)
        nn.init.zeros_(layer.bias)


class ConvolutionalAnalysis(nn.Module):
    """The textbook encoder: four strided 5×5 convolutions. Shapes as `Analysis`."""

    def __init__(self, config: LossyConfig):
        super().__init__()
        w1, w2, w3 = config.widths
        sizes = (3, w1, w2, w3, config.latent_channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        _keep_variance(self.layers)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = 4 * (x - 0.5)
        for layer in self.layers[:-1]:
            h = activation(layer(h))
        return self.layers[-1](h).float()


class ConvolutionalSynthesis(nn.Module):
    """The textbook decoder: four strided 5×5 transposed convolutions. Shapes as `Synthesis`; `gained` is not used."""

    def __init__(self, config: LossyConfig):
        super().__init__()
        w1, w2, w3 = config.widths
        sizes = (config.latent_channels, w3, w2, w1, 3)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1)
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        _keep_variance(self.layers)

    def forward(self, y: Tensor, gained: Tensor, t: Tensor) -> Tensor:
        h = y
        for layer in self.layers[:-1]:
            h = activation(layer(h))
        return self.layers[-1](h).float() / 4 + 0.5


@torch.no_grad()
def start_convolutions(analysis: ConvolutionalAnalysis, synthesis: ConvolutionalSynthesis, patches: Tensor) -> Tensor:
    """Start the textbook transforms as a linear transform and its transpose: at each layer the PCA of 2×2 positions.

    patches: N×3×16×16 in [0, 1]. Two channels stand for a component, one for each sign, since the rectifier bends: a layer
    of w channels passes w/2 on. What is left over starts at random, unheard by the next layer. Returns the components'
    standard deviations.
    """
    features = 4 * (patches - 0.5)
    scales = (0.5, 0.5, 0.5, 2.0)  # keep the size of what a mean makes; pixel units in the end
    for number, (down, up) in enumerate(zip(analysis.layers, reversed(synthesis.layers), strict=True)):
        count = features.shape[1]
        cells = F.pixel_unshuffle(features, 2)  # channel, row and column in a cell
        flat = cells.transpose(0, 1).flatten(1).double()
        _, vectors = torch.linalg.eigh(flat @ flat.T)
        kept = min(4 * count, down.out_channels // (1 if number == 3 else 2))
        basis = vectors.flip(1)[:, :kept].T.float()
        features = scales[number] * torch.einsum("kc,nchw->nkhw", basis, cells)
        kernel = torch.zeros(kept, count, 5, 5)
        kernel[:, :, 2:4, 2:4] = basis.view(kept, count, 2, 2)
        # Components × channels: what the analysis makes of what, and the synthesis of it again.
        fine, coarse = number > 0, number < 3  # whether there are two of each
        kernel = _signed(_signed(kernel, coarse).transpose(0, 1), fine).transpose(0, 1)
        rows, columns = kernel.shape[:2]
        down.weight[:rows], up.weight[:, :columns] = 0, 0
        down.weight[:rows, :columns] = kernel * scales[number] / (1 + SLOPE * fine)
        up.weight[:rows, :columns] = kernel / scales[number] / (1 + SLOPE * coarse)
    return features.square().mean((0, 2, 3)).sqrt()


def _signed(kernel: Tensor, both: bool) -> Tensor:
    """A kernel, and the same for the other sign."""
    return torch.cat((kernel, -kernel)) if both else kernel


def transforms(config: LossyConfig) -> tuple[nn.Module, nn.Module]:
    """The (analysis, synthesis) pair of a configuration."""
    if config.transform == "residual":
        return Analysis(config), Synthesis(config)
    return ConvolutionalAnalysis(config), ConvolutionalSynthesis(config)
