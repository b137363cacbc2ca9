"""What the model has learned, as pictures: bits by place and channel, traversals, samples, and their commands."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from codec import cli, lossy, refine, weights
from codec.errors import LimitError
from codec.evaluation import latents
from codec.freeze import freeze
from codec.networks.config import LossyConfig
from codec.networks.model import LossyVAE

pytestmark = pytest.mark.usefixtures("tiny_model")


def searched(encoder: lossy.Encoder, quality: int) -> lossy.Latents:
    return refine.refine(encoder, encoder.analyse(quality), quality, latents.EFFORT)


@pytest.fixture(scope="module")
def uneven(photo) -> Image.Image:
    """A picture whose sides are no multiples of anything, with structure on its left only."""
    pixels = np.full((75, 150, 3), 128, np.uint8)
    pixels[:64, :75] = np.asarray(photo)[:, :75]
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def explanation(uneven, tiny_model) -> latents.Explanation:
    return latents.explain(uneven, 60)


def test_the_heat_map_sums_to_what_the_bit_counter_counts(explanation, uneven):
    counted = lossy.count_bits(np.asarray(uneven), 6000, infer=searched)
    assert explanation.bits == pytest.approx(counted, rel=1e-9)
    assert explanation.heat().sum() * 16**2 == pytest.approx(counted, rel=1e-9)


def test_the_explained_file_is_the_file_and_its_bytes_are_accounted_for(explanation, uneven):
    assert explanation.data == codec.compress(uneven, 60)
    assert explanation.agrees and 0 <= explanation.unexplained <= 8  # the range coder's last words
    figures = explanation.figures()
    parts = ("overhead_bytes", "latent_bytes", "hyper_latent_bytes", "unexplained_bytes")
    assert sum(figures[part] for part in parts) == pytest.approx(figures["file_bytes"])
    assert sum(figures["latent_bits_by_channel"]) / 8 == pytest.approx(figures["latent_bytes"], rel=1e-3)


def test_the_bits_go_where_the_structure_is(explanation):
    latent_bits = explanation.latent_bits.sum(0)
    assert latent_bits[:4, :4].mean() > 1.5 * latent_bits[:4, 6:9].mean()  # tiny spends bits on nothing, too


def test_pictures_of_several_tiles_add_up_too():
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 1100, 3), np.uint8))
    found = latents.explain(wide, 20)
    assert found.tile_count == 2 and found.agrees
    assert found.bits == pytest.approx(lossy.count_bits(np.asarray(wide), 2000, infer=searched), rel=1e-9)


def test_a_traversal_leaves_the_picture_alone_where_nothing_moves(explanation, uneven):
    decoded = np.asarray(codec.decompress(explanation.data)) / 255
    used = [moved.channel for moved in explanation.strip]
    totals = explanation.latent_bits.sum((1, 2))
    assert totals[used].tolist() == sorted(totals, reverse=True)[: latents.MOVED_CHANNELS]
    for moved in explanation.strip:
        assert (moved.row, moved.column) == (2, 4) and moved.moves[2] == 0
        still = moved.pictures[2].clip(0, 1)
        top, left = 16 * max(0, moved.row - latents.VIEW), 16 * max(0, moved.column - latents.VIEW)
        there = decoded[top : top + still.shape[0], left : left + still.shape[1]]
        assert np.abs(still - there).max() < 1.5 / 255
        assert np.abs(moved.pictures[0] - moved.pictures[4]).max() > 2 / 255


def test_samples_are_the_same_under_a_seed_and_differ_under_another():
    one, size = latents.sample(100, 70, 50, seed=1)
    again, _ = latents.sample(100, 70, 50, seed=1)
    other, _ = latents.sample(100, 70, 50, seed=2)
    assert one.size == (100, 70) and size > 8
    assert one.tobytes() == again.tobytes() != other.tobytes()


def test_dice_fall_as_often_as_the_table_says():
    table = weights.load(weights.default_path()).latent_tables[30]
    drawn = latents.Dice(0).code(None, 100_000, table)
    counts = np.bincount(drawn - table.low, minlength=table.escape)
    expected = table.frequencies[:-1] / table.frequencies[:-1].sum() * 100_000
    likely = expected > 100
    assert likely.sum() > 3 and np.allclose(counts[likely], expected[likely], atol=5 * np.sqrt(expected[likely].max()))


def test_too_large_a_sample_is_a_limit():
    with pytest.raises(LimitError, match="more than the limit"):
        latents.sample(1 << 20, 1 << 20, 50, seed=0)


def test_a_factorised_model_is_explained_and_sampled(uneven, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    config = LossyConfig(
        "plain", transform="convolutional", prior="factorised", widths=(8, 8, 8), latent_channels=12, context_steps=1
    )
    weights.save(freeze(LossyVAE(config)), tmp_path / "plain.safetensors")
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))
    monkeypatch.setenv("CODEC_MODEL", "plain")
    found = latents.explain(uneven, 50)
    assert found.hyper_bits.size == 0 and found.agrees
    assert found.bits == pytest.approx(lossy.count_bits(np.asarray(uneven), 5000, infer=searched), rel=1e-9)
    assert all(path.exists() for path in latents.draw(found, tmp_path))
    assert latents.sample(64, 64, 50, seed=0)[0].size == (64, 64)


def test_explain_writes_pictures_and_figures(uneven, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    uneven.save(tmp_path / "in.png")
    assert cli.main(["explain", str(tmp_path / "in.png"), "--out", str(tmp_path / "out"), "-q", "60"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"bits.png", "channels.png", "traversal.png", "explain.json"}
    for name in names - {"explain.json"}:
        with Image.open(tmp_path / "out" / name) as picture:
            picture.load()
            assert min(picture.size) > 100
    figures = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert figures["file_bytes"] == len(codec.compress(uneven, 60)) and figures["agrees"]
    said = capsys.readouterr()
    assert said.out == "" and f"{figures['file_bytes']} B" in said.err


def test_sample_writes_its_file(tmp_path, capsys):
    words = ["sample", "--out", str(tmp_path / "s.png"), "--seed", "3", "--size", "48x32", "-q", "40"]
    assert cli.main(words) == 0
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.tobytes() == latents.sample(48, 32, 40, seed=3)[0].tobytes()
    assert "48×32" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, reason",
    [
        (["explain", "broken.png", "--out", "out"], "error: broken.png: not an image that Pillow can read\n"),
        (["explain", "none.png", "--out", "out"], "error: none.png: no such file or directory\n"),
        (["sample", "--out", "s.xyz"], "error: s.xyz: no image format is known by the suffix '.xyz': try .png\n"),
        (["sample", "--out", "no/s.png"], "error: no/s.png cannot be written: there is no directory no\n"),
        (["sample", "--out", "s.png", "--size", "999999x999999"], r"error: s.png: 999999×999999 is 999998000001 pixels"),
    ],
)
def test_bad_input_is_one_line(words, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith(reason) and err.count("\n") == 1


@pytest.mark.parametrize("size", ["12", "0x5", "axb", "5x-1"])
def test_a_size_without_sense_is_a_usage_error(size, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["sample", "--out", "s.png", "--size", size])
    assert end.value.code == 2 and "is no size" in capsys.readouterr().err
