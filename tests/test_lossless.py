"""The lossless method on a small real model: every pixel back, the rate, bits-back, exactness, damage."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import codec
from codec import lossless, weights
from codec.entropy.mixtures import Arithmetic, Stack, ideal_bits, tables
from codec.errors import CodecError, FormatError
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


@contextlib.contextmanager
def setting(threads: int, mkldnn: bool):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=mkldnn):
            yield
    finally:
        torch.set_num_threads(before)


# ── the stack ──


def mixture(rng: np.random.Generator, count: int, components: int = 3):
    def dyadic(low: float, high: float) -> np.ndarray:
        return np.round(rng.uniform(low, high, (count, components)) * 1024) / 1024

    return Arithmetic(**tables()).mixture(dyadic(-8, 8), dyadic(-40, 300), dyadic(-6, 8))


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_a_stack_returns_what_was_pushed_and_pushes_what_was_popped(seed, count):
    rng = np.random.default_rng(seed)
    first, second = mixture(rng, count), mixture(rng, count, 1)
    values = rng.integers(0, 256, count)
    stack = Stack()
    stack.push(values, first)
    before = stack.data()
    drawn = stack.pop(second)
    stack.push(drawn, second)
    assert stack.data() == before
    stack = Stack(before)
    assert np.array_equal(stack.pop(first), values) and stack.empty


def test_every_value_has_a_positive_frequency_and_all_sum_to_one(rng):
    count = 500
    m = mixture(rng, count)
    below = np.stack([m.below(np.full(count, value)) for value in range(1, 256)])
    edges = np.concatenate([np.zeros((1, count)), below, np.full((1, count), 1 << 20)])
    assert np.diff(edges, axis=0).min() >= 1


def test_a_stack_is_as_long_as_its_ideal_code_lengths(rng):
    m = mixture(rng, 5000)
    stack, values = Stack(), rng.integers(0, 256, 5000)
    stack.push(values, m)
    assert 8 * len(stack.data()) == pytest.approx(ideal_bits(values, m).sum(), rel=1e-3)


def test_the_golden_words_of_a_stack():
    """A change of constriction, of the tables or of this code that moves a bit is found here."""
    rng = np.random.default_rng(7)
    stack = Stack()
    stack.push(rng.integers(90, 160, 12), mixture(rng, 12))
    assert stack.data().hex() == GOLDEN_WORDS


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


def test_a_picture_of_several_tiles_and_groups(pixels, monkeypatch):
    monkeypatch.setattr(lossless, "TILE", 32)
    monkeypatch.setattr(lossless, "GROUP", 5)
    model_id, section = lossless.encode(pixels)
    assert np.array_equal(decode(section, model_id, pixels.shape), pixels)


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


def test_an_unknown_model_is_named(pixels):
    _, section = lossless.encode(pixels)
    with pytest.raises(CodecError, match="deadbeef"):
        decode(section, bytes.fromhex("deadbeef"), pixels.shape)


def test_weights_too_large_for_exact_sums_are_refused(model, tmp_path):
    state = {name: value.clone() for name, value in model.network.state_dict().items()}
    state["middle.0.weight"][0] = 1e5
    network = type(model.network)(model.config)
    network.load_state_dict(state)
    weights.save_lossless(tmp_path / "m.safetensors", network=network, coefficients=model.coefficients, training={})
    with pytest.raises(FormatError, match="not exact"):
        weights.load_lossless(tmp_path / "m.safetensors")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("lossless_*.lic")), ids=lambda path: path.stem)
def test_golden_files_decode_for_ever(path):
    image = codec.decompress(path.read_bytes())
    with Image.open(path.with_suffix(".png")) as expected:
        assert image.mode == expected.mode and image.tobytes() == expected.tobytes()
