"""bfloat16 where it is faster, float32 elsewhere: what the processor has, and what oneDNN may use of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codec.networks import layers

pytestmark = pytest.mark.usefixtures("tiny_model")
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("tiles", "instructions", "vendor", "cap", "fast"),
    [
        (True, True, "GenuineIntel", "", True),
        (True, True, "GenuineIntel", "all", True),
        (True, True, "GenuineIntel", "AVX512_CORE_AMX", True),
        (True, True, "GenuineIntel", "AVX512_CORE_BF16", False),  # where oneDNN's bfloat16 is slower than float32
        (True, True, "GenuineIntel", "AVX2", False),
        (False, True, "GenuineIntel", "", False),
        (False, True, "AuthenticAMD", "", True),
        (False, True, "AuthenticAMD", "AVX512_CORE_BF16", True),
        (False, True, "AuthenticAMD", "avx512_core", False),  # where it is emulated
        (False, False, "AuthenticAMD", "", False),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it_faster(monkeypatch, tiles, instructions, vendor, cap, fast):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions, raising=False)
    monkeypatch.setattr(layers, "_of_amd", lambda: vendor == "AuthenticAMD")
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert layers.fast_bfloat16(torch.device("cpu")) == fast


def test_a_torch_that_does_not_tell_of_instructions_gets_float32(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not layers.fast_bfloat16(torch.device("cpu"))


CAPPED = """
import sys
import torch
import codec
from codec.networks.layers import fast_bfloat16, multiply
from PIL import Image
image = Image.open("tests/data/kodim23_crop.png")
for effort in (1, 3):
    assert codec.decompress(codec.compress(image, effort=effort)).size == image.size
codec.decompress(open("tests/golden/v1/rgb.lic", "rb").read())
x, weight = torch.ones(1, 4, 8, 8), torch.ones(4, 4, 1, 1)
with torch.autocast("cpu", torch.bfloat16):  # as when a training run is told --precision bfloat16
    found = multiply(x, weight)
    gradient, = torch.autograd.grad(multiply(x, weight.requires_grad_()).sum(), weight)
assert found.eq(4).all() and gradient.eq(64).all()
assert not fast_bfloat16(torch.device("cpu"))
"""


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_cap_on_the_instructions_that_onednn_may_use_is_respected(name):
    """Its bfloat16 operators refuse to run below AVX-512: they were called all the same, for the processor has more."""
    done = subprocess.run([sys.executable, "-c", CAPPED], capture_output=True, text=True, cwd=ROOT, env=os.environ | {name: "AVX2"})
    assert (done.returncode, done.stderr) == (0, "")
