"""The lossy method on a small real model: rate, determinism, damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import setting
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import codec
from codec import container, hyperlatents, lossy, postfilter, refine, weights
from codec.freeze import freeze
from codec.networks.config import LossyConfig
from codec.networks.exact import OUTPUT_STEP
from codec.networks.model import LossyVAE
from codec.postfilter import FEATURES
from codec.tiles import TILE, tiles
from codec.training.objective import scale_rate

GOLDEN = Path(__file__).parent / "golden" / "v1"

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """A piece of a photograph whose sides are no multiples of anything."""
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        return np.array(image)[100:299, 200:433]


def decode(data: bytes, model_id: bytes, shape: tuple[int, ...], quality: int, **settings) -> np.ndarray:
    return lossy.decode(data, width=shape[1], height=shape[0], quality=quality, model_id=model_id, **settings)


def symbols(data: bytes, shape: tuple[int, ...], quality: int) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        reader = lossy._Reader(weights.load(weights.default_path()), data, quality, *shape[:2])
        return reader.read(reader.whole)


def test_the_counter_says_what_the_file_weighs(pixels):
    """Bits counted, bits written, and the training estimate of the same symbols: three views of one rate."""
    for quality in (0, 4500, 10000):
        _, data = lossy.encode(pixels, quality)
        counted = lossy.count_bits(pixels, quality)
        assert counted / 8 <= len(data) <= 1.005 * counted / 8 + 32


def test_the_training_estimate_agrees_with_the_counter(monkeypatch):
    """Of what the shipped model writes: its scales are fitted to that. (The tiny one pays for many outliers, whose tables
    cost less than their Gaussians.)"""
    monkeypatch.delenv("CODEC_MODELS")
    monkeypatch.delenv("CODEC_MODEL")
    model = weights.load(weights.default_path())
    trained = LossyVAE(model.config)
    # The estimate needs the float scale network; its integers are exact multiples of its quantised weights.
    trained.load_state_dict({**trained.state_dict(), **model.network.state_dict()})
    trained.prior.scale_network.forward = lambda z: model.scales(z) * OUTPUT_STEP
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        picture = np.array(image)
    with lossy.execution("cpu", 0):
        encoder = lossy.Encoder(model, picture)
        for point in range(0, model.config.rate_points, 2):
            quality = round(point * container.QUALITY_MAX / (model.config.rate_points - 1))
            latents = refine.refine(encoder, encoder.analyse(quality), quality, 3)
            t = lossy.position(model, quality)
            z, residuals = (torch.from_numpy(symbols)[None].float() for symbols in (latents.z, latents.residuals))
            levels = encoder.levels(z, quality, latents.residuals.shape)
            bits = float(scale_rate(trained, z, residuals, levels, t)["bpp"]) * picture[..., 0].size
            bits += hyperlatents.lengths(model, quality, latents.z).sum()  # see test_hyperlatents.py
            # Tables are made of counts: on a trellis symbols keep less to the interval that is nearest than Gaussians of it say.
            assert encoder.bits(latents) == pytest.approx(bits, rel=0.02)


def test_quality_raises_bytes_and_psnr(pixels):
    last_bytes, last_error = 0, np.inf
    for quality in range(0, 10001, 1000):
        model_id, data = lossy.encode(pixels, quality)
        error = np.mean((decode(data, model_id, pixels.shape, quality).astype(float) - pixels) ** 2)
        assert len(data) > last_bytes and error < last_error
        last_bytes, last_error = len(data), error


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_files_of_one_setting_decode_in_every_other(pixels):
    """1 and 2 threads, oneDNN on and off: same symbols, pixels within one level."""
    reference_id, reference = lossy.encode(pixels, 6000)
    expected = decode(reference, reference_id, pixels.shape, 6000)
    expected_symbols = symbols(reference, pixels.shape, 6000)
    for threads in (1, 2):
        for mkldnn in (True, False):
            with setting(threads, mkldnn):
                for ours, theirs in zip(symbols(reference, pixels.shape, 6000), expected_symbols, strict=True):
                    assert np.array_equal(ours, theirs)
                decoded = decode(reference, reference_id, pixels.shape, 6000)
                assert np.abs(decoded.astype(int) - expected).max() <= 1
                _, data = lossy.encode(pixels, 6000)
            decode(data, reference_id, pixels.shape, 6000)  # its check values hold here too


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (65, 3), (64, 64), (17, 129)])
def test_any_size_comes_back_in_its_size(shape, rng):
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    model_id, data = lossy.encode(pixels, 5000)
    assert decode(data, model_id, shape, 5000).shape == (*shape, 3)


def test_a_picture_of_several_tiles_is_coded_tile_by_tile(pixels):
    wide = np.tile(pixels[:64], (1, 6, 1))
    assert len(tiles(*wide.shape[:2])) == 2 and wide.shape[1] > TILE
    model_id, data = lossy.encode(wide, 3000)
    decoded = decode(data, model_id, wide.shape, 3000)
    assert decoded.shape == wide.shape
    assert np.mean((decoded.astype(float) - wide) ** 2) < 200


def test_truncated_or_extended_latents_are_refused(pixels):
    model_id, data = lossy.encode(pixels[:40, :40], 2000)
    for damaged in (data + b"\0", *(data[:end] for end in range(len(data)))):
        with pytest.raises(codec.CodecError):
            decode(damaged, model_id, (40, 40), 2000)


def test_an_unknown_model_is_named():
    with pytest.raises(codec.CodecError, match="01020304"):
        decode(b"", bytes([1, 2, 3, 4]), (8, 8), 0)


def test_model_files_are_checked_when_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))
    (tmp_path / "tiny.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 not json at all")
    with pytest.raises(codec.CodecError, match="not a usable model file"):
        lossy.encode(np.zeros((8, 8, 3), np.uint8), 0)
    monkeypatch.setenv("CODEC_MODEL", "absent")
    with pytest.raises(codec.CodecError, match="absent"):
        lossy.encode(np.zeros((8, 8, 3), np.uint8), 0)


def test_a_factorised_model_codes_without_hyper_latents(tmp_path, monkeypatch, pixels):
    """The textbook baseline runs through the same file format."""
    torch.manual_seed(0)
    config = LossyConfig("plain", transform="convolutional", prior="factorised", widths=(8, 8, 8), latent_channels=12, rate_points=2)
    weights.save(freeze(LossyVAE(config)), tmp_path / "plain.safetensors")
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))
    monkeypatch.setenv("CODEC_MODEL", "plain")
    model_id, data = lossy.encode(pixels, 10000)
    z, residuals = symbols(data, pixels.shape, 10000)
    assert z.size == 0 and residuals.shape == (12, 16, 16)
    assert decode(data, model_id, pixels.shape, 10000).shape == pixels.shape


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles and blocks so small that a small picture has many."""
    monkeypatch.setattr("codec.tiles.TILE", 64)
    monkeypatch.setattr(lossy, "TILE", 64)
    monkeypatch.setattr(lossy, "BLOCK", 128)


def test_no_seam_between_tiles(pixels, monkeypatch):
    """Transforms that run tile by tile give what they give on the whole picture."""
    model = weights.load(weights.default_path())
    with torch.no_grad():
        whole = lossy.Encoder(model, pixels)
        latents = lossy.amortise(whole, 7000)
        y = whole.analyse(7000)
        picture = whole.picture(latents)
        monkeypatch.setattr("codec.tiles.TILE", 64)
        monkeypatch.setattr(lossy, "TILE", 64)
        again = lossy.Encoder(model, pixels).analyse(7000)
        cut = whole.picture(latents)
    assert float((again - y).abs().max()) < 0.02 * float(y.abs().max())
    assert np.abs(cut.astype(int) - picture).max() <= 1


def test_no_seam_between_blocks(pixels, small_tiles, monkeypatch):
    """A picture that is decoded block by block is the one that is decoded whole; coding it so costs next to nothing."""
    model_id, data = lossy.encode(pixels, 5000)
    by_block = decode(data, model_id, pixels.shape, 5000)
    monkeypatch.setattr(lossy, "BLOCK", 1024)
    assert np.abs(decode(data, model_id, pixels.shape, 5000).astype(int) - by_block).max() <= 1
    _, at_once = lossy.encode(pixels, 5000)
    assert abs(len(data) - len(at_once)) <= 0.01 * len(at_once)
    error = [np.mean((decode(one, model_id, pixels.shape, 5000).astype(float) - pixels) ** 2) for one in (data, at_once)]
    assert error[0] <= 1.02 * error[1]


@pytest.mark.parametrize("region", [(0, 0, 233, 199), (0, 0, 1, 1), (232, 198, 1, 1), (60, 70, 80, 9), (130, 3, 64, 190)])
def test_a_region_is_what_the_whole_picture_has_there(pixels, small_tiles, region):
    model_id, data = lossy.encode(pixels, 5000)
    left, top, width, height = region
    part = decode(data, model_id, pixels.shape, 5000, region=region)
    expected = decode(data, model_id, pixels.shape, 5000)[top : top + height, left : left + width]
    assert part.shape == expected.shape and np.abs(part.astype(int) - expected).max() <= 1


def test_a_region_does_not_read_what_is_far_from_it(small_tiles):
    """Damage there goes unnoticed, and damage near it does not."""
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        wide = np.array(image)[:64]
    model_id, data = lossy.encode(wide, 5000)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    decode(damaged, model_id, wide.shape, 5000, region=(0, 0, 100, 64))
    with pytest.raises(codec.FormatError):
        decode(damaged, model_id, wide.shape, 5000, region=(600, 0, 30, 30))


@pytest.mark.parametrize("reduce", [8, 16])
def test_a_preview_looks_like_the_picture_made_smaller(pixels, small_tiles, reduce):
    model_id, data = lossy.encode(pixels, 8000)
    preview = decode(data, model_id, pixels.shape, 8000, reduce=reduce)
    expected = Image.fromarray(decode(data, model_id, pixels.shape, 8000)).reduce(reduce)
    assert preview.shape[:2] == expected.size[::-1]
    inner = (slice(0, 199 // reduce), slice(0, 233 // reduce))  # whole squares
    assert np.sqrt(np.mean((preview.astype(float) - np.asarray(expected))[inner] ** 2)) < 3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (51, 51, 51), (230, 230, 50), (10, 20, 200)])
def test_the_shipped_model_makes_little_of_flat_pictures(colour, monkeypatch):
    """Networks that have seen photographs alone make hyper-latents beyond all bounds of them: five bits a pixel."""
    for name in ("CODEC_MODELS", "CODEC_MODEL"):
        monkeypatch.delenv(name)
    flat = Image.new("RGB", (320, 320), colour)
    for quality in (0, 40, 60, 75, 90, 100):
        data = codec.compress(flat, quality)
        assert 8 * len(data) < 0.15 * 320 * 320, quality
        assert np.abs(np.asarray(codec.decompress(data), int) - colour).mean() < 8


@pytest.fixture
def trellis_model(monkeypatch):
    """The tiny model with a trellis in place of its uniform quantiser."""
    monkeypatch.setenv("CODEC_MODEL", "trellis")


@pytest.mark.parametrize("effort", [1, 3, 4])
def test_a_decoder_follows_the_trellis(pixels, trellis_model, effort, monkeypatch):
    """What it shows is what the encoder meant, which symbols that stand for themselves are not."""
    with lossy.execution("cpu", 0):
        encoder = lossy.Encoder(weights.load(weights.default_path()), pixels)
        latents = refine.refine(encoder, encoder.analyse(7000), 7000, effort)
        levels = encoder.levels(torch.from_numpy(latents.z)[None], 7000, latents.residuals.shape)
        assert 0.1 < float((levels >= 25).float().mean()) < 0.9 and np.abs(latents.residuals).max() > 3
        shown = decode(encoder.write(latents), encoder.model.model_id, pixels.shape, 7000)
        meant = encoder.picture(latents)
        assert np.abs(shown.astype(int) - meant).max() <= 1
        monkeypatch.setattr(lossy, "offsets", lambda symbols, levels, config: symbols.astype(np.float32))
        shown = decode(encoder.write(latents), encoder.model.model_id, pixels.shape, 7000)
        assert np.abs(shown.astype(int) - meant).mean() > 2


def test_a_trellis_stays_within_its_tile(pixels, trellis_model, small_tiles, monkeypatch):
    """Each tile has paths of its own, whatever block it was coded in and whichever part is decoded."""
    for infer in (None, lambda encoder, quality: refine.refine(encoder, encoder.analyse(quality), quality, 3)):
        model_id, data = lossy.encode(pixels, 7000, infer=infer)
        whole = decode(data, model_id, pixels.shape, 7000)
        part = decode(data, model_id, pixels.shape, 7000, region=(70, 60, 90, 99)).astype(int)
        assert np.abs(part - whole[60:159, 70:160]).max() <= 1
        monkeypatch.setattr(lossy, "BLOCK", 1024)
        at_once = decode(lossy.encode(pixels, 7000, infer=infer)[1], model_id, pixels.shape, 7000)
        monkeypatch.setattr(lossy, "BLOCK", 128)
        error = [np.mean((shown.astype(float) - pixels) ** 2) for shown in (whole, at_once)]
        assert error[0] <= 1.02 * error[1]


@pytest.fixture
def filtered_model(tmp_path, monkeypatch):
    """The tiny model with a basis of post-filters: for each colour and its neighbours, one that blurs or sharpens."""
    with safe_open(GOLDEN / "trellis.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        metadata = file.metadata()
    basis = torch.zeros(9, 3, FEATURES)
    for number in range(9):
        colour, ring = divmod(number, 3)
        basis[number, colour, 10 * colour + 1 + ring] = 0.1
    save_file({**tensors, "postfilter.basis": basis}, tmp_path / "filtered.safetensors", metadata=metadata)
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))
    monkeypatch.setenv("CODEC_MODEL", "filtered")


def refined(encoder, quality):
    return refine.refine(encoder, encoder.analyse(quality), quality, 3)


def test_a_decoder_applies_the_post_filter(pixels, filtered_model):
    with lossy.execution("cpu", 0):
        encoder = lossy.Encoder(weights.load(weights.default_path()), pixels)
        latents = refined(encoder, 6000)
        without = replace(latents, filter=postfilter.NONE)
        plain, better = encoder.picture(without), encoder.picture(latents)
        assert encoder.bits(latents) == encoder.bits(without) + 8 * (len(latents.filter) - 1)
        data = encoder.write(latents)
    assert data == lossy.encode(pixels, 6000, infer=refined)[1]
    shown = decode(data, encoder.model.model_id, pixels.shape, 6000)
    assert np.abs(shown.astype(int) - better).max() <= 1
    error = [np.square(picture.astype(float) - pixels).mean() for picture in (plain, better)]
    assert error[1] < 0.99 * error[0]
    # And `compress` uses it, from effort 2 on.
    for effort, used in ((1, False), (2, True), (4, True)):
        _, sections = container.unpack(codec.compress(pixels, 60, effort=effort))
        assert (sections[container.Tag.LATENTS][0] > 0) == used


def test_a_search_knows_the_post_filter(pixels, filtered_model):
    """The derivative of the error is that of the filtered picture."""
    with lossy.execution("cpu", 0):
        encoder = lossy.Encoder(weights.load(weights.default_path()), pixels[:64, :64])
        latents = refined(encoder, 6000)
        strong = postfilter.pack(1, np.array([3, -2, 1, 2, 0, 1, -2, 1, 2]))
        for filter in (postfilter.NONE, strong):
            latents = replace(latents, filter=filter)
            gradient = refine._look(encoder, latents, refine._windows(encoder, "psnr"), 0).gradient
            direction = torch.randn(latents.decoded.shape, generator=torch.Generator().manual_seed(4))
            error = []
            for step in (-1e-2, 1e-2):
                x = refine._synthesise(encoder, latents.decoded + step * direction, 6000)
                kernel = postfilter.kernel(encoder.model.postfilter, filter)
                if kernel:
                    x = postfilter.apply(F.pad(x, [postfilter.REACH] * 4, mode="replicate"), kernel)
                error.append(float((x - encoder.x).square().sum()))
            assert float((gradient * direction).sum()) == pytest.approx((error[1] - error[0]) / 2e-2, rel=0.1)


def test_a_post_filter_leaves_no_seams(pixels, filtered_model, small_tiles, monkeypatch):
    """It is fitted to all blocks together, and sees across tiles."""
    model_id, data = lossy.encode(pixels, 6000, infer=refined)
    assert data[0] > 0
    whole = decode(data, model_id, pixels.shape, 6000)
    part = decode(data, model_id, pixels.shape, 6000, region=(70, 60, 90, 99)).astype(int)
    assert np.abs(part - whole[60:159, 70:160]).max() <= 1
    for module in ("codec.tiles", "codec.lossy"):
        monkeypatch.setattr(f"{module}.TILE", 1024)
    monkeypatch.setattr(lossy, "BLOCK", 1024)
    at_once = lossy.encode(pixels, 6000, infer=refined)[1]
    basis = weights.load(weights.default_path()).postfilter
    kernels = [postfilter.kernel(basis, filter)[0] for filter in (data, at_once)]
    assert torch.allclose(*kernels, atol=0.03)


def test_damage_of_a_post_filter_is_found(pixels, filtered_model):
    model_id, data = lossy.encode(pixels, 6000, infer=refined)
    length = postfilter.read(data, 9)[2]
    assert length > 2
    for bit in range(8 * length):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(codec.CodecError):
            decode(bytes(damaged), model_id, pixels.shape, 6000)
    for damaged in (data[:end] for end in range(length)):
        with pytest.raises(codec.CodecError):
            decode(damaged, model_id, pixels.shape, 6000)
