"""The lossless method on a small real model: every pixel back, the rate, bits-back, exactness, damage."""

import hashlib
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import setting
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from codec import adaptation, lossless, weights
from codec.entropy.mixtures import Arithmetic, Stacks, ideal_bits, tables
from codec.errors import CodecError, FormatError
from codec.freeze import freeze_lossless
from codec.networks import lossless as net

pytestmark = pytest.mark.usefixtures("tiny_model")
GOLDEN = Path(__file__).parent / "golden" / "v1"


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """A piece of a photograph whose sides are no multiples of anything."""
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        return np.array(image)[100:171, 200:303]


@pytest.fixture(scope="module")
def model() -> weights.LosslessModel:
    return weights.load_lossless(weights.default_path(lossless=True))


def decode(section: bytes, model_id: bytes, shape: tuple[int, ...], **settings) -> np.ndarray:
    height, width, channels = shape
    return lossless.decode(section, width=width, height=height, channels=channels, model_id=model_id, **settings)


# ── the stack ──


def mixture(rng: np.random.Generator, count: int, components: int = 3):
    def dyadic(low: float, high: float) -> np.ndarray:
        return np.round(rng.uniform(low, high, (count, components)) * 1024) / 1024

    return Arithmetic(**tables()).mixture(dyadic(-8, 8), dyadic(-40, 300), dyadic(-6, 8))


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.lists(st.integers(0, 200), max_size=3))
def test_stacks_return_what_was_pushed_and_push_what_was_popped(seed, count, cuts):
    rng = np.random.default_rng(seed)
    first, second = mixture(rng, count), mixture(rng, count, 1)
    values = rng.integers(0, 256, count)
    ends = [*sorted(min(cut, count) for cut in cuts), count]
    stacks = Stacks([b""] * len(ends))
    stacks.push(values, first, ends)
    before = stacks.data()
    drawn = stacks.pop(second, ends)
    stacks.push(drawn, second, ends)
    assert stacks.data() == before
    stacks = Stacks(before)
    assert np.array_equal(stacks.pop(first, ends), values) and stacks.empty


def test_stacks_in_step_are_stacks_on_their_own(rng):
    m, values = mixture(rng, 90), rng.integers(0, 256, 90)
    together = Stacks([b"", b"", b""])
    together.push(values, m, [40, 40, 90])
    for data, part in zip(together.data(), (slice(0, 40), slice(40, 40), slice(40, 90)), strict=True):
        alone = Stacks([b""])
        alone.push(values[part], m.part(part), [part.stop - part.start])
        assert alone.data() == [data]


def test_every_value_has_a_positive_frequency_and_all_sum_to_one(rng):
    count = 500
    m = mixture(rng, count)
    below = np.stack([m.below(np.full(count, value)) for value in range(1, 256)])
    edges = np.concatenate([np.zeros((1, count)), below, np.full((1, count), 1 << 20)])
    assert np.diff(edges, axis=0).min() >= 1


def test_a_stack_is_as_long_as_its_ideal_code_lengths(rng):
    m = mixture(rng, 5000)
    stacks, values = Stacks([b""]), rng.integers(0, 256, 5000)
    stacks.push(values, m, [5000])
    assert 8 * len(stacks.data()[0]) == pytest.approx(ideal_bits(values, m).sum(), rel=1e-3)


def test_the_golden_words_of_a_stack():
    """A change of constriction, of the tables or of this code that moves a bit is found here."""
    rng = np.random.default_rng(7)
    stacks = Stacks([b""])
    stacks.push(rng.integers(90, 160, 12), mixture(rng, 12), [12])
    assert stacks.data()[0].hex() == GOLDEN_WORDS


GOLDEN_WORDS = "919d5119aff1aa33d20200029514dc93d90fd52725bd99c805"


# ── pictures ──


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (15, 17), (16, 16), (33, 70), (71, 103)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_comes_back(pixels, shape, channels):
    part = np.ascontiguousarray(pixels[: shape[0], : shape[1], :channels])
    model_id, section = lossless.encode(part)
    assert np.array_equal(decode(section, model_id, part.shape), part)


@pytest.mark.parametrize("kind", ["noise", "flat", "steps", "extremes"])
def test_pictures_that_no_network_expects_come_back(rng, kind):
    shape = (37, 53, 3)
    part = {
        "noise": rng.integers(0, 256, shape),
        "flat": np.full(shape, 255),
        "steps": np.indices(shape).sum(0) // 16 % 2 * 255,
        "extremes": rng.choice([0, 255], shape),
    }[kind].astype(np.uint8)
    model_id, section = lossless.encode(part)
    assert np.array_equal(decode(section, model_id, part.shape), part)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [16, 32])  # 35 tiles, with a stack each; 12 on one
def test_a_picture_of_several_tiles_and_a_region_of_it(pixels, monkeypatch, tile, channels):
    monkeypatch.setattr(lossless, "TILE", tile)
    pixels = pixels[..., :channels]
    model_id, section = lossless.encode(pixels)
    assert np.array_equal(decode(section, model_id, pixels.shape), pixels)
    run, tiles = lossless._Tiles.__init__, []
    monkeypatch.setattr(lossless._Tiles, "__init__", lambda *a: tiles.extend(sum(a[2], [])) or run(*a))
    part = decode(section, model_id, pixels.shape, region=(40, 20, 25, 13))
    assert np.array_equal(part, pixels[20:33, 40:65])
    assert len(tiles) == (6 if tile == 16 else 12)


def test_files_of_groups_of_sixteen_tiles_are_what_they_were(pixels, monkeypatch):
    """Older encoders put 16 tiles on one stack in pictures of any size."""
    monkeypatch.setattr(lossless, "TILE", 16)
    model = weights.load_lossless(weights.default_path(lossless=True))
    fitted, own = (lossless._write(model, pixels, chosen, alone=False) for chosen in (lossless._fitted(pixels), None))
    section = min(fitted, own, key=len)
    assert hashlib.sha256(section).hexdigest() == "59bd5ebfa47e9ecf4eced7c1b4663ad74261924ce59b91671036dc3b1c642e90"
    assert np.array_equal(decode(section, model.model_id, pixels.shape), pixels)
    assert np.array_equal(decode(section, model.model_id, pixels.shape, region=(40, 20, 25, 13)), pixels[20:33, 40:65])
    assert len(lossless.encode(pixels)[1]) < len(section) + 35 * 8


def test_what_is_held_does_not_grow_with_the_tiles(pixels, monkeypatch):
    """Sixteen at a time, and of them as many pixels at once as of a single one."""
    monkeypatch.setattr(lossless, "TILE", 16)
    alive, counts = weakref.WeakSet(), []
    init, look = lossless._Tiles.__init__, lossless._Tiles.look

    def count_tiles(tiles, *arguments):
        assert not alive
        alive.add(tiles)
        init(tiles, *arguments)
        assert len(tiles.tiles) <= 16

    def count_pixels(tiles, span):
        counts.append(span.stop - span.start)
        return look(tiles, span)

    monkeypatch.setattr(lossless._Tiles, "__init__", count_tiles)
    monkeypatch.setattr(lossless._Tiles, "look", count_pixels)
    most = []
    for part in (pixels[:16, :16], pixels):  # one tile; 35
        model_id, section = lossless.encode(part)
        most.append(max(counts))
        decode(section, model_id, part.shape)
    assert most[1] <= 1.5 * most[0]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # the flags of oneDNN mention Intel GPUs
def test_threads_and_libraries_change_nothing(pixels):
    sections = []
    for threads, mkldnn in ((1, True), (2, False), (4, True)):
        with setting(threads, mkldnn):
            sections.append(lossless.encode(pixels))
    assert sections[0] == sections[1] == sections[2]
    with setting(3, False):
        assert np.array_equal(decode(sections[0][1], sections[0][0], pixels.shape), pixels)


def test_networks_are_exact_whatever_the_order_of_the_sums(model, rng):
    """Reversing all inputs of a layer changes the order of its sums, and must not change a single result."""
    features = torch.from_numpy(np.round(rng.normal(0, 4, (300, net.INPUTS)) * 4096) / 4096).clamp(-16, 16)
    plain = model.network.enter(features)
    layer = model.network.enter
    backwards = torch.nn.functional.linear(features.flip(1), layer.weight.flip(1), layer.bias)
    one_by_one = torch.cat([layer(row[None]) for row in features])
    assert torch.equal(plain, backwards) and torch.equal(plain, one_by_one)


def test_the_file_weighs_what_the_elbo_says(pixels):
    _, section = lossless.encode(pixels)
    total = lossless.count_bits(pixels)["total"] / 8
    overhead = 2 * net.CHANNELS * net.CHANNELS * (net.LINEAR - 1) + 9
    assert len(section) - overhead == pytest.approx(total, rel=0.01, abs=16)


def test_bits_back_returns_the_bits_of_the_posterior(pixels):
    bits = lossless.count_bits(pixels)
    assert bits["prior"] > bits["posterior"] > 0


def test_training_and_the_exact_networks_agree(pixels, model):
    """The ELBO that training estimates in float32 is the one that the file pays."""
    from codec.training.lossless import PixelFolder, negative_elbo

    side = 64
    part = np.ascontiguousarray(pixels[:side, :side])
    folder = PixelFolder([torch.from_numpy(part).permute(2, 0, 1).contiguous()])
    network = type(model.network)(model.config)
    network.load_state_dict({name: value.float() for name, value in model.network.state_dict().items()})
    torch.manual_seed(0)
    with torch.no_grad():
        estimates = [negative_elbo(network, torch.stack(folder.crop(0, 0, 0, side))[None])["bpsp"] for _ in range(8)]
    counted = lossless.count_bits(part)["total"] / part.size
    assert float(torch.stack(estimates).mean()) == pytest.approx(counted, rel=0.01)


# ── a model adapted to the picture ──


@pytest.mark.parametrize("channels", [1, 3])
def test_effort_adapts_the_model_and_saves_bytes(pixels, monkeypatch, channels):
    monkeypatch.setattr(lossless, "SMALL", 1000)
    monkeypatch.setattr(adaptation, "STEPS", 150)
    part = pixels[..., :channels] & 0xF0  # nothing that the model knows
    plain, (model_id, section) = (lossless.encode(part, effort=effort) for effort in (3, 4))
    assert plain == lossless.encode(part, effort=1) and section[0] == 5 and len(section) < 0.99 * len(plain[1])
    assert np.array_equal(decode(section, model_id, part.shape), part)


def test_changes_that_do_not_pay_are_left_out(rng, monkeypatch):
    monkeypatch.setattr(lossless, "SMALL", 100)
    monkeypatch.setattr(adaptation, "STEPS", 2)
    part = rng.integers(0, 256, (15, 15, 3), dtype=np.uint8)
    assert lossless.encode(part, effort=9) == lossless.encode(part, effort=3)


def test_changes_come_back(model, rng):
    before = [parameter.clone() for parameter in model.network.parameters()]
    count = sum(p.numel() for p in model.network.heads_out.parameters())
    changes = rng.integers(-128, 128, count)
    packed = adaptation.pack(model, 6, changes)
    changed, length = adaptation.read(model, packed + b"more", 3)
    assert length == len(packed)
    found = [a - b for a, b in zip(changed.network.heads_out.parameters(), model.network.heads_out.parameters(), strict=True)]
    assert np.array_equal(torch.cat([one.flatten() for one in found]).numpy() * 64, changes)
    assert all(torch.equal(a, b) for a, b in zip(before, model.network.parameters(), strict=True))


def test_bad_changes_are_reported(model, monkeypatch):
    packed = adaptation.pack(model, 6, np.ones(510, np.int64))
    for end in range(len(packed)):
        with pytest.raises(FormatError, match="changes"):
            adaptation.read(model, packed[:end], 3)
    for bad in (b"\x0f" + packed[1:], packed[:1] + b"\x40" + packed[2:]):
        with pytest.raises(FormatError, match="changes"):
            adaptation.read(model, bad, 3)
    with pytest.raises(FormatError, match="do not end"):
        adaptation.read(model, packed, 1)
    monkeypatch.setattr(adaptation, "MAX_SUM", 0.5)
    with pytest.raises(FormatError, match="exact"):
        adaptation.read(model, packed, 3)


# ── damage ──


def test_any_damage_to_a_section_is_an_error(pixels):
    part = np.ascontiguousarray(pixels[:12, :20])
    model_id, section = lossless.encode(part)
    for end in range(len(section)):
        with pytest.raises(FormatError):
            decode(section[:end], model_id, part.shape)
    for place in range(len(section)):
        with pytest.raises(FormatError):
            decode(section[:place] + bytes([section[place] ^ 1 << place % 8]) + section[place + 1 :], model_id, part.shape)


@pytest.mark.parametrize("end", [b"\0", bytes(4), bytes(9)])
def test_a_stream_with_zeros_at_its_end_is_an_error(pixels, end):
    """Under check values that fit: what only somebody who means it writes."""
    part = np.ascontiguousarray(pixels[:12, :20])
    model_id, section = lossless.encode(part)
    assert section[0] == 0
    stream = section[5:-4] + end
    body = section[:1] + len(stream).to_bytes(4, "little") + stream
    with pytest.raises(FormatError, match="zero byte"):
        decode(body + zlib.crc32(body).to_bytes(4, "little"), model_id, part.shape)


def test_an_unknown_model_is_named(pixels):
    _, section = lossless.encode(pixels)
    with pytest.raises(CodecError, match="deadbeef"):
        decode(section, bytes.fromhex("deadbeef"), pixels.shape)


def test_weights_too_large_for_exact_sums_are_refused(model, tmp_path):
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    state["middle.0.weight"][0] = 1e5
    network = type(model.network)(model.config)
    network.load_state_dict(state)
    frozen = freeze_lossless(network, model.coefficients)
    with pytest.raises(ValueError, match="not exact"):
        weights.assemble_lossless(frozen)
    weights.save(frozen, tmp_path / "m.safetensors")
    with pytest.raises(FormatError, match="m.safetensors: .*not exact"):
        weights.load_lossless(tmp_path / "m.safetensors")
