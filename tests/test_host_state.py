"""Whatever a host program has set in torch: the bytes of a plain process, and nothing of the host's changed."""

import contextlib
import hashlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import codec
from codec import api, metrics, pillow_plugin
from codec.evaluation import latents
from codec.networks.execution import apart

pytestmark = pytest.mark.usefixtures("tiny_model")
ROOT = Path(__file__).parent.parent
WAYS = ({"quality": 50, "effort": 1}, {"quality": 60, "tune": "ms-ssim"}, {"lossless": True})


class SeesFunctions(TorchFunctionMode):
    """As of a debugger: what is called under it is the host's own."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        raise AssertionError(f"the host has seen {function.__name__}")


class SeesOperators(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        raise AssertionError(f"the host has seen {function}")


@contextlib.contextmanager
def switched(switch, value, back):
    switch(value)
    try:
        yield
    finally:
        switch(back)


SETTINGS = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "doubles by default": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "halves by default": lambda: switched(torch.set_default_dtype, torch.float16, torch.float32),
    "meta by default": lambda: switched(torch.set_default_device, "meta", None),
    "meta for a while": lambda: torch.device("meta"),
    "deterministic algorithms": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "no denormal numbers": lambda: switched(torch.set_flush_denormal, True, False),
    "medium precision of products": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "who sees functions": SeesFunctions,
    "who sees operators": SeesOperators,
    "tensors without values": FakeTensorMode,
}


def work(image) -> list[tuple[bytes, bytes]]:
    """Files and what they decode to, one of them also as a preview."""
    coded = []
    for way in WAYS:
        data = codec.compress(image, threads=1, **way)
        coded.append((data, codec.decompress(data, threads=1).tobytes()))
    return [*coded, (b"", codec.decompress(coded[0][0], preview=8, threads=1).tobytes())]


def state() -> dict:
    """What a host may have set, and may look at again."""
    return {
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()),
        "inference mode": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "type": torch.get_default_dtype(),
        "modes": torch.overrides._get_current_function_mode_stack(),
        "operators": torch._C._len_torch_dispatch_stack(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "oneDNN": torch._C._get_mkldnn_enabled(),
        "threads": torch.get_num_threads(),
        "random": torch.random.default_generator.initial_seed(),
    }


@pytest.fixture(scope="module")
def photo(photo):
    return photo.crop((20, 8, 84, 56))


@pytest.fixture(scope="module")
def expected(photo, tiny_model) -> list[tuple[bytes, bytes]]:
    return work(photo)


@pytest.fixture
def never_loaded(tiny_model, tmp_path, monkeypatch):
    """Models that this process has not loaded yet: loading is part of the call."""
    for name in ("tiny", "lossless-tiny"):
        shutil.copy(tiny_model.with_name(f"{name}.safetensors"), tmp_path)
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))


@pytest.mark.parametrize("name", SETTINGS)
def test_files_are_those_of_a_plain_process(name, photo, expected, never_loaded):
    with SETTINGS[name]():
        before = state()
        found = work(photo)
        assert state() == before
    assert found == expected
    data, pixels = expected[1]  # and then with the model that was loaded in the setting:
    assert codec.compress(photo, threads=1, **WAYS[1]) == data and codec.decompress(data, threads=1).tobytes() == pixels


def test_the_shipped_model_is_as_blind_to_them(photo, monkeypatch):
    for name in ("CODEC_MODELS", "CODEC_MODEL"):
        monkeypatch.delenv(name)
    small = photo.crop((0, 0, 64, 64))
    plain = codec.compress(small, threads=1)
    pixels = codec.decompress(plain, threads=1).tobytes()
    with SETTINGS["autocast to bfloat16"](), SETTINGS["medium precision of products"]():
        assert codec.compress(small, threads=1) == plain
        assert codec.decompress(plain, threads=1).tobytes() == pixels


def test_every_other_entrance_is_guarded_too(photo, tiny_model, never_loaded):
    numcodecs_plugin = pytest.importorskip("codec.numcodecs_plugin")
    array, lossless = np.asarray(photo), codec.compress(photo, lossless=True)
    larger = photo.resize((160, 128))  # to which weights are adapted

    def enter() -> list[bytes]:
        file = io.BytesIO()
        photo.save(file, pillow_plugin.FORMAT, quality=40)
        image = codec.open(io.BytesIO(file.getvalue()))
        small = codec.open(io.BytesIO(file.getvalue()))
        small.thumbnail((8, 8))
        api.verify(lossless, photo)
        lic = numcodecs_plugin.Lic()
        chunk = lic.encode(array)
        explained = latents.explain(photo, 50)
        drawn, _ = latents.sample(64, 64, 50, 1)
        moved = [move.pictures.tobytes() for move in explained.strip]
        adapted = codec.compress(larger, lossless=True, effort=4)
        seen = codec.compress(photo, 60, tune=metrics.SSIMULACRA2)
        reached = codec.compress(photo, target_psnr=18)
        shown = [picture.tobytes() for picture in (image, small, lic.decode(chunk), drawn)]
        return [adapted, seen, reached, file.getvalue(), chunk, explained.data, *moved, *shown]

    with contextlib.ExitStack() as host:
        for name, setting in SETTINGS.items():
            if name not in ("no gradients", "anomaly detection"):  # the one undoes another, the other takes its time
                host.enter_context(setting())
        found = enter()
    assert found == enter()


FIRST = """
import contextlib, hashlib, sys
sys.path[:0] = ["tests", "."]
import test_host_state
from PIL import Image
with contextlib.ExitStack() as host:
    for name, setting in test_host_state.SETTINGS.items():
        host.enter_context(setting())
    image = Image.open("tests/data/kodim23_crop.png").crop((20, 8, 84, 56))
    found = [test_host_state.work(image)]
found.append(test_host_state.work(image))
print(*(hashlib.sha256(repr(coded).encode()).hexdigest() for coded in found))
"""


def test_a_process_whose_first_call_had_everything_set_is_not_poisoned(expected):
    """Nothing that is made at the first call and kept (tables, patterns, what oneDNN can do) keeps the setting."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FIRST], capture_output=True, text=True, cwd=ROOT)
    plain = hashlib.sha256(repr(expected).encode()).hexdigest()
    assert done.stdout.split() == [plain, plain], done.stderr


def test_what_the_host_draws_next_is_what_it_would_have_drawn(photo, never_loaded):
    torch.manual_seed(3)
    np.random.seed(3)
    drawn = torch.rand(4), np.random.rand(4)
    torch.manual_seed(3)
    np.random.seed(3)
    codec.decompress(codec.compress(photo, lossless=True, effort=4))
    codec.decompress(codec.compress(photo))
    assert torch.equal(torch.rand(4), drawn[0]) and np.array_equal(np.random.rand(4), drawn[1])


def test_a_failure_leaves_the_host_as_it_was(photo):
    data = codec.compress(photo)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    with SETTINGS["who sees functions"](), SETTINGS["inference mode"](), SETTINGS["autocast to bfloat16"]():
        before = state()
        for bad in (damaged, data[:-9]):
            with pytest.raises(codec.FormatError):
                codec.decompress(bad)
        assert state() == before


def test_nested_modes_come_back_in_their_order():
    with SETTINGS["meta by default"](), torch.device("cpu"), SeesFunctions():
        before = state()["modes"]
        with apart():
            assert torch.empty(1).device.type == "cpu" and not state()["modes"]
        assert state()["modes"] == before and len(before) == 3


def test_without_onednn_files_decode_to_the_same_symbols(photo, expected):
    """A program that has switched it off has its reasons; its encoder may decide otherwise, as on another machine."""
    with switched(torch._C._set_mkldnn_enabled, False, True):
        assert not torch._C._get_mkldnn_enabled()
        pixels = codec.decompress(expected[1][0])  # a symbol that differs is an error
        assert codec.compress(photo, lossless=True) == codec.compress(photo, lossless=True)
        own = codec.compress(photo, 50)
        assert not torch._C._get_mkldnn_enabled()
    near = np.frombuffer(expected[1][1], np.uint8).reshape(np.asarray(pixels).shape).astype(int)
    assert np.abs(near - np.asarray(pixels)).max() <= 1
    assert codec.decompress(own).size == photo.size
