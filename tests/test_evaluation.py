"""The evaluation: rows, peers, runs that resume, summaries, comparisons, plots and the commands around them."""

import argparse
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import DATA
from PIL import Image

from codec.evaluation import cli, columns, compare, curves, images, peers, plots, rows, runner, summary
from codec.metrics import psnr

TIMES = ("encode_s", "decode_s", "encode_peak_mib", "decode_peak_mib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture of 176×168, one of a single pixel, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    v, u = np.mgrid[:168, :176]
    waves = np.stack(
        [128 + 90 * np.sin(u / 9 + k) * np.cos(v / 13) + 20 * ((u // 8 + v // 8) % 2) for k in range(3)], -1
    )
    Image.fromarray(waves.astype(np.uint8)).save(folder / "waves.png")
    Image.new("RGB", (1, 1), (9, 8, 7)).save(folder / "dot.png")
    (folder / "broken.png").write_bytes(b"\x89PNG but no more")
    return folder


def row(codec="jpeg", image="a", setting=50.0, **values):
    defaults = {
        "image": f"{image}.png", "image_sha256": image, "width": 100, "height": 80, "codec": codec, "codec_version": "1",
        "setting": setting, "bytes": 1000, "bpp": 1.0, "psnr_rgb": 30.0, "psnr_y": 31.0, "ms_ssim": 0.9, "encode_s": 0.1,
        "decode_s": 0.01, "encode_peak_mib": None, "decode_peak_mib": 50.0, "threads": 1, "commit": None, "machine": "m",
    }  # fmt: skip
    return rows.Row(**defaults | values)


def grid(codec, factor=1.0, images="abc", steps=range(1, 6), **values):
    """Rows of a codec whose rate is `factor` times 0.1 · step bpp at 28 + 2 · step dB, a little different on each image."""
    return [
        row(
            codec,
            image,
            float(step),
            bpp=0.1 * step * factor * (1 + 0.1 * k),
            psnr_rgb=28 + 2 * step + 0.3 * k,
            **values,
        )
        for k, image in enumerate(images)
        for step in steps
    ]


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_come_back_as_they_were_written(tmp_path):
    written = [row(), row(setting=None, psnr_rgb=None, psnr_y=None), row(image="b", ms_ssim=None, note="too small")]
    rows.append(tmp_path / "rows.jsonl", written[:1])
    rows.append(tmp_path / "rows.jsonl", written[1:])
    assert rows.read(tmp_path / "rows.jsonl") == (written, [])


def test_a_damaged_line_is_named_and_the_rest_is_kept(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows.append(file, [row(image="a")])
    with open(file, "ab") as raw:
        raw.write(b'{"image": "b.png"}\n\xff\xfe\n[]\n')
    rows.append(file, [row(image="c", bytes=7)])
    text = file.read_bytes().replace(b'"bytes": 7', b'"bytes": "7"')
    file.write_bytes(text)
    rows.append(file, [row(image="d")])
    known, complaints = rows.read(file)
    assert [r.image_sha256 for r in known] == ["a", "d"]
    assert [complaint.split(" is damaged")[0] for complaint in complaints] == [
        f"rows.jsonl: line {n}" for n in (2, 3, 4, 5)
    ]
    assert "no field 'image_sha256'" in complaints[0] and "field 'bytes' is '7'" in complaints[3]


def test_a_line_cut_off_by_an_interruption_does_not_swallow_the_next(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows.append(file, [row(image="a"), row(image="b")])
    file.write_bytes(file.read_bytes()[:-40])
    rows.append(file, [row(image="c")])
    known, complaints = rows.read(file)
    assert [r.image_sha256 for r in known] == ["a", "c"] and len(complaints) == 1


def test_the_later_row_of_a_key_counts(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows.append(file, [row(bytes=1), row(image="b"), row(bytes=2)])
    assert [(r.image_sha256, r.bytes) for r in rows.read(file)[0]] == [("b", 1000), ("a", 2)]


def test_the_table_has_a_column_for_each_field_and_metric(tmp_path):
    rows.write_csv(tmp_path / "rows.csv", [row(perceptual={"ssimulacra2": 71.5}), row(ms_ssim=None)])
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert lines[0].startswith("image,image_sha256,width") and lines[0].endswith(",note,ssimulacra2")
    assert lines[1].endswith(",,71.5") and lines[2].endswith(",,")


def test_a_later_row_keeps_the_metrics_that_only_an_earlier_one_has(tmp_path):
    earlier, later = row(perceptual={"ssimulacra2": 70.0, "cvvdp": 9.0}), row(perceptual={"ssimulacra2": 71.0})
    rows.append(tmp_path / "rows.jsonl", [earlier, later])
    assert rows.read(tmp_path / "rows.jsonl")[0] == [row(perceptual={"ssimulacra2": 71.0, "cvvdp": 9.0})]


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_folders_give_their_pictures_by_name_and_files_themselves(folder):
    found = images.find([folder, folder / "dot.png"])
    assert [path.name for path in found] == ["broken.png", "dot.png", "waves.png", "dot.png"]


def test_transparency_is_laid_over_white_and_metadata_dropped(tmp_path):
    Image.new("RGBA", (2, 1), (255, 0, 0, 0)).save(tmp_path / "clear.png", pnginfo=None)
    loaded = images.load(tmp_path / "clear.png")
    assert loaded.getpixel((0, 0)) == (255, 255, 255) and loaded.info == {} and loaded.mode == "RGB"


def test_sixteen_bits_are_refused_by_name(tmp_path):
    Image.fromarray(np.full((4, 4), 60000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        images.load(tmp_path / "deep.png")


def test_a_picture_is_named_by_its_pixels_not_its_file(tmp_path, folder):
    Image.open(folder / "waves.png").save(tmp_path / "copy.bmp")
    assert images.identify(tmp_path / "copy.bmp").sha256 == images.identify(folder / "waves.png").sha256


# ── Peers ────────────────────────────────────────────────────────────────────────────────────────────────────────────

INSTALLED = [name for name in peers.names() if name not in ("lic", "compressai", "flif")]


def build(spec):
    try:
        return peers.build(spec)
    except peers.MissingCodec as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    "spec", [n for n in INSTALLED if n not in ("png", "jpegls", "avif")] + ["avif:s9", "jpeg:444:plain"]
)
def test_more_quality_is_more_bytes_and_less_error(spec, folder):
    peer, image = build(spec), images.load(folder / "waves.png")
    files = [peer.encode(image, setting) for setting in (peer.grid[1], peer.grid[-1])]
    decoded = [peer.decode(data) for data in files]
    assert len(files[0]) < len(files[1])
    assert all(picture.size == image.size and picture.mode == "RGB" for picture in decoded)
    errors = [np.abs(np.asarray(picture, int) - np.asarray(image)).mean() for picture in decoded]
    assert errors[1] < errors[0] < 40


@pytest.mark.parametrize("spec", [n for n in INSTALLED if n not in ("jpeg", "webp", "avif", "textbook")] + ["webp:m0", "avif:s9"])
def test_lossless_modes_give_every_pixel_back(spec, folder):
    peer, image = build(spec), images.load(folder / "waves.png")
    assert np.array_equal(peer.decode(peer.encode(image, peers.LOSSLESS)), image)


def test_avif_that_is_tuned_for_psnr_has_more_of_it_for_fewer_bytes():
    with Image.open(DATA / "kodim23.png") as photo:
        part = photo.convert("RGB").crop((200, 100, 456, 292))
    found = {}
    for spec in ("avif:s9", "avif:s9:psnr"):
        peer = build(spec)
        data = peer.encode(part, 70)
        found[spec] = len(data), psnr(np.asarray(part), np.asarray(peer.decode(data)))
    (as_it_comes, less), (tuned, more) = found.values()
    assert tuned < as_it_comes and more > less


def test_our_codec_is_a_peer_like_any_other(folder, tiny_model):
    peer, image = peers.build("lic:e1"), images.load(folder / "waves.png")
    files = [peer.encode(image, quality) for quality in (10.0, 90.0)]
    assert len(files[0]) < len(files[1]) and peer.decode(files[0]).size == image.size
    assert "model " in peer.version and "commit " in peer.version


def test_an_unknown_codec_or_option_lists_what_there_is():
    with pytest.raises(peers.UnknownCodec, match="unknown codec 'jpg'; known: avif, .*webp"):
        peers.build("jpg")
    with pytest.raises(peers.UnknownCodec, match="jpeg:fast: unknown option 'fast'"):
        peers.build("jpeg:fast")
    with pytest.raises(peers.UnknownCodec, match="model's name missing"):
        peers.build("compressai")


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def measure(folder, file, specs=("jpeg", "avif:s9", "png"), **options):
    said = []
    outcome = runner.evaluate(
        images.find([folder]), specs, file, grids={"jpeg": [10.0, 60.0], "avif:s9": [200.0]}, say=said.append, **options
    )
    return outcome, said


def without_times(file):
    known = [dataclasses.replace(r, **dict.fromkeys(TIMES, 0.0)) for r in rows.read(file)[0]]
    return sorted(known, key=lambda r: r.key)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("run") / "rows.jsonl"
    return (*measure(folder, file), file)


def test_a_run_reports_what_fails_and_measures_the_rest(run):
    outcome, said, file = run
    assert (outcome.measured, outcome.kept) == (4, 0)
    assert said == outcome.failures + outcome.missing and len(outcome.failures) == 3
    assert "broken.png is left out: cannot identify image file" in said[0]
    assert all("avif:s9 at 200: ValueError: Invalid quality setting" in line for line in said[1:3])
    assert outcome.missing == ["png is left out: it has no lossy mode"]


def test_every_row_is_made_of_bytes_and_pixels(run, folder):
    for r in rows.read(run[2])[0]:
        image, buffer = images.load(folder / r.image), io.BytesIO()
        image.save(buffer, "JPEG", quality=int(r.setting), optimize=True)
        assert r.bytes == len(buffer.getvalue()) and r.bpp == 8 * r.bytes / (r.width * r.height)
        decoded = np.asarray(Image.open(buffer))
        assert r.psnr_rgb == pytest.approx(10 * np.log10(255**2 / ((decoded - np.asarray(image, float)) ** 2).mean()))
        assert 0 < r.decode_s < 10 and 0 < r.encode_s < 10
        assert r.encode_peak_mib is None or 10 < r.encode_peak_mib < 500


def test_ms_ssim_of_one_pixel_is_none_and_the_row_says_why(run):
    by_name = {r.image: r for r in rows.read(run[2])[0]}
    assert by_name["waves.png"].ms_ssim > 0.5 and by_name["waves.png"].note == ""
    assert by_name["dot.png"].ms_ssim is None and "undefined below 161 pixels" in by_name["dot.png"].note


def test_a_resumed_run_gives_the_rows_of_one_run(run, folder, tmp_path):
    whole = run[2].read_bytes().splitlines(keepends=True)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(whole[:2]) + whole[2][:50])  # stopped while it wrote the third row
    outcome, said = measure(folder, file, specs=["jpeg"], processes=2)
    assert (outcome.measured, outcome.kept) == (2, 2)
    assert any("line 3 is damaged" in line for line in said)
    assert without_times(file) == without_times(run[2])
    outcome, _ = measure(folder, file, specs=["jpeg"])
    assert (outcome.measured, outcome.kept) == (0, 4)


def test_a_missing_codec_is_named_with_its_hint_and_left_out(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    outcome, said = measure(folder, tmp_path / "rows.jsonl", specs=["flif"])
    assert outcome.missing == ["flif is left out: install the program flif and put it on PATH"]
    assert outcome.versions == {} and outcome.measured == 0


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for the program")
def test_a_program_on_the_path_is_called_with_files(folder, tmp_path, monkeypatch):
    """The plumbing alone: a script that copies stands in for `flif`, which few machines have."""
    program = tmp_path / "flif"
    program.write_text('#!/bin/sh\ncase "$1" in\n--version) echo "FLIF 0.0 stand-in";;\n-e) cp "$3" "$4";;\n-d) cp "$2" "$3";;\nesac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    peer, image = peers.build("flif:e40"), images.load(folder / "waves.png")
    assert peer.version == "FLIF 0.0 stand-in" and peer.grid == ()
    data = peer.encode(image, peers.LOSSLESS)
    assert data.startswith(b"P6") and np.array_equal(peer.decode(data), image)


def test_equal_pictures_are_measured_once(folder, tmp_path):
    Image.open(folder / "dot.png").save(tmp_path / "same.png")
    said = []
    pictures = runner.identify([folder / "dot.png", tmp_path / "same.png"], said.append)
    assert len(pictures) == 1 and "the same pixels as" in said[0]


# ── Optional metrics ─────────────────────────────────────────────────────────────────────────────────────────────────


def optional(folder, file, *metrics, name="waves.png", setting=30.0):
    """The row of one picture as JPEG, and what was said."""
    said = []
    outcome = runner.evaluate(
        [folder / name], ["jpeg"], file, grids={"jpeg": [setting]}, optional=metrics, say=said.append
    )
    assert outcome.failures == [] and said == outcome.missing
    return rows.read(file)[0][0], said


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a stand-in for butteraugli_main on PATH: a shell script of the given lines."""
    if os.name != "posix":
        pytest.skip("a shell script stands in for the program")

    def write(lines):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "butteraugli_main").write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / "bin" / "butteraugli_main").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    return write


def test_ssimulacra2_is_that_of_its_package(folder, tmp_path):
    package = pytest.importorskip("ssimulacra2")
    known, _ = optional(folder, tmp_path / "rows.jsonl", "ssimulacra2")
    peer, image = peers.build("jpeg"), images.load(folder / "waves.png")
    peer.decode(peer.encode(image, 30)).save(tmp_path / "decoded.png")
    expected = package.compute_ssimulacra2(str(folder / "waves.png"), str(tmp_path / "decoded.png"))
    assert known.perceptual == {"ssimulacra2": pytest.approx(expected)} and 10 < expected < 95


@pytest.mark.skipif(shutil.which("butteraugli_main") is None, reason="libjxl's butteraugli_main is not on PATH")
def test_butteraugli_falls_with_quality_and_is_zero_for_equal_pictures(folder):
    measure, image = columns.load("butteraugli"), images.load(folder / "waves.png")
    peer = peers.build("jpeg")
    decoded = [np.asarray(peer.decode(peer.encode(image, setting))) for setting in (10, 90)]
    worse, better = (measure(np.asarray(image), pixels) for pixels in decoded)
    assert worse > better > 0 == measure(np.asarray(image), np.asarray(image))


def test_cvvdp_falls_with_quality_and_is_ten_for_equal_pictures(folder):
    try:
        measure = columns.load("cvvdp")
    except columns.MissingMetric as error:
        pytest.skip(str(error))
    image, peer = images.load(folder / "waves.png"), peers.build("jpeg")
    decoded = [np.asarray(peer.decode(peer.encode(image, setting))) for setting in (10, 90)]
    worse, better = (measure(np.asarray(image), pixels) for pixels in decoded)
    assert worse < better < 10 == pytest.approx(measure(np.asarray(image), np.asarray(image)))


def test_the_program_of_butteraugli_is_given_two_files_and_its_3_norm_is_taken(folder, tmp_path, program):
    program('test -s "$1" -a -s "$2" -a "$1" != "$2" && echo 9.5 && echo "3-norm: 1.25"')
    known, said = optional(folder, tmp_path / "rows.jsonl", "butteraugli")
    assert known.perceptual == {"butteraugli": 1.25} and known.note == "" and said == []


def test_a_metric_that_fails_on_a_picture_is_undefined_there_and_the_row_says_why(folder, tmp_path, program):
    program("echo too small >&2; exit 1")
    known, _ = optional(folder, tmp_path / "rows.jsonl", "butteraugli")
    assert known.perceptual == {"butteraugli": None} and known.ms_ssim > 0.5
    assert "butteraugli: ValueError: " in known.note and "too small" in known.note
    before = (tmp_path / "rows.jsonl").read_bytes()
    optional(folder, tmp_path / "rows.jsonl", "butteraugli")
    assert (tmp_path / "rows.jsonl").read_bytes() == before  # not tried again


def test_a_metric_that_takes_its_process_along_costs_its_value_and_not_the_row(folder, tmp_path, program):
    program("kill -9 $PPID")
    known, _ = optional(folder, tmp_path / "rows.jsonl", "butteraugli")
    assert known.perceptual == {"butteraugli": None} and "the process of the metrics died" in known.note


def test_a_missing_metric_is_named_with_its_hint_and_left_out(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    known, said = optional(folder, tmp_path / "rows.jsonl", "butteraugli")
    assert known.perceptual == {} and len(said) == 1
    assert said[0].startswith("metric butteraugli is left out: put libjxl's butteraugli_main on PATH")


def test_a_metric_whose_package_is_broken_is_left_out(folder, tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("")
    (tmp_path / "pycvvdp.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    known, said = optional(folder, tmp_path / "rows.jsonl", "cvvdp")
    assert known.perceptual == {}
    assert said == ["metric cvvdp is left out: RuntimeError: operator torchvision::nms does not exist"]


def test_rows_that_lack_a_metric_are_measured_again(folder, tmp_path, program):
    file = tmp_path / "rows.jsonl"
    optional(folder, file)
    program('echo "3-norm: 2"')
    assert optional(folder, file, "butteraugli")[0].perceptual == {"butteraugli": 2.0}
    assert len(file.read_bytes().splitlines()) == 2
    optional(folder, file)
    assert len(file.read_bytes().splitlines()) == 2


# ── Curves, summaries, comparisons ───────────────────────────────────────────────────────────────────────────────────


def test_a_curve_is_mean_bpp_over_mean_psnr_rising_in_rate():
    (codec,), remarks = curves.measured(grid("jpeg")[::-1])
    bpp, psnr = codec.points("psnr")
    assert bpp == pytest.approx([0.11, 0.22, 0.33, 0.44, 0.55]) and psnr == pytest.approx(
        [30.3, 32.3, 34.3, 36.3, 38.3]
    )
    assert remarks == []


def test_incomplete_pictures_settings_and_old_versions_are_left_out_with_a_remark():
    known = grid("jpeg", codec_version="0") + grid("jpeg", images="ab") + grid("jpeg", images="c", steps=[1, 2])
    known += grid("webp") + grid("webp", images="a", steps=[9])
    (jpeg, webp), remarks = curves.measured(known)
    assert jpeg.images == webp.images == ("a.png", "b.png") and jpeg.version == "1"
    assert webp.settings == jpeg.settings == (1, 2, 3, 4, 5)
    assert remarks == [
        "jpeg: rows of other versions than 1 are left out",
        "webp: settings 9 are left out, some images lack them",
        "left out of all means for lack of complete rows of jpeg: c.png",
    ]


def test_pictures_of_one_name_stay_apart():
    known = [dataclasses.replace(r, image="x.png", image_sha256=r.image_sha256 * 8) for r in grid("jpeg", images="ab")]
    (codec,), _ = curves.measured(known)
    assert codec.images == ("x.png (aaaaaa)", "x.png (bbbbbb)")


def test_ms_ssim_leaves_out_the_pictures_where_it_is_undefined():
    known = [dataclasses.replace(r, ms_ssim=None) if r.image_sha256 == "a" else r for r in grid("jpeg")]
    (codec,), _ = curves.measured(known)
    assert codec.points("ms_ssim")[0] == pytest.approx([0.115, 0.23, 0.345, 0.46, 0.575])  # of b and c
    with pytest.raises(ValueError, match="undefined for these images"):
        codec.points("ms_ssim", [0])


def summarised(*parts, anchor=0):
    codecs, _ = curves.measured([r for part in parts for r in part])
    return summary.summarise(codecs, codecs[anchor])


def test_a_codec_of_four_fifths_of_the_bits_saves_twenty_percent_on_every_image():
    entry = summarised(grid("jpeg"), grid("lic", 0.8))["codecs"][1]
    assert entry["bd_rate_psnr"]["percent"] == pytest.approx(-20)
    assert entry["bd_rate_psnr"]["interval"] == pytest.approx([-20, -20])
    assert list(entry["bd_rate_psnr"]["per_image"].values()) == pytest.approx([-20] * 3)
    assert entry["bits_at_equal_psnr"]["0.3"] == pytest.approx(-20) and entry["bits_at_equal_psnr"]["1.5"] is None


def test_the_interval_holds_the_value_and_widens_with_scatter():
    uneven = [dataclasses.replace(r, bpp=r.bpp * {"a": 0.6, "b": 0.8, "c": 1.1}[r.image_sha256]) for r in grid("lic")]
    first, second = (summarised(grid("jpeg"), uneven)["codecs"][1]["bd_rate_psnr"] for _ in range(2))
    assert first == second  # the same rows tell the same
    low, high = first["interval"]
    assert -40.001 < low < first["percent"] < high < 10.001 and high - low > 20  # between all of a and all of c


def scored(codec, factor=1.0, scores=(30, 50, 70, 80, 95), metric="ssimulacra2", **values):
    """Rows of a grid with a score for each step."""
    return [
        dataclasses.replace(r, perceptual={metric: float(scores[int(r.setting) - 1])})
        for r in grid(codec, factor, **values)
    ]


def test_a_metric_has_its_own_bd_rate_over_the_scores_that_count():
    account = summarised(scored("jpeg"), scored("lic", 0.7))
    assert account["metrics"] == ["psnr", "ms_ssim", "ssimulacra2"]
    entry = account["codecs"][1]
    assert entry["bd_rate_ssimulacra2"]["percent"] == pytest.approx(-30)
    assert entry["bd_rate_ssimulacra2"]["range"] == [40, 90]  # of 30 to 95
    assert entry["bits_at_equal_ssimulacra2"]["0.3"] == pytest.approx(-30)
    for heads, cells in (summary.table(account), summary.metric_table(account, "ssimulacra2")):
        assert all(len(line) == len(heads) for line in cells) and any("−30.0 %" in cell for cell in cells[1])


def test_what_is_better_when_it_is_less_rises_on_its_scale():
    (codec,), _ = curves.measured(scored("jpeg", scores=(8, 4, 2, 1, 0), metric="butteraugli"))
    _, quality = codec.points("butteraugli")
    assert quality[:4] == pytest.approx(10 * np.log10([1 / 8, 1 / 4, 1 / 2, 1])) and quality[4] == np.inf
    assert len(codec.curve("butteraugli").x) == 4


def test_a_codec_without_a_metric_says_so_and_no_metric_makes_no_column():
    account = summarised(scored("jpeg"), grid("lic"))
    assert account["codecs"][1]["bd_rate_ssimulacra2"] == {"percent": None, "why": "lic: SSIMULACRA 2 was not measured"}
    assert summarised(grid("jpeg"))["metrics"] == ["psnr", "ms_ssim"]


def test_means_of_a_metric_are_over_the_images_that_all_codecs_have_it_of():
    holed = [dataclasses.replace(r, perceptual={}) if r.image_sha256 == "a" else r for r in scored("lic")]
    (jpeg, lic), remarks = curves.measured(scored("jpeg") + holed)
    assert jpeg.points("ssimulacra2")[0] == pytest.approx(lic.points("ssimulacra2")[0])
    assert jpeg.points("ssimulacra2")[0] == pytest.approx([0.115, 0.23, 0.345, 0.46, 0.575])  # of b and c
    assert jpeg.points("psnr")[0] == pytest.approx([0.11, 0.22, 0.33, 0.44, 0.55])
    assert remarks == ["SSIMULACRA 2 is undefined or was not measured for 1 of 3 images"]


def test_what_has_no_common_quality_says_so():
    lifted = [dataclasses.replace(r, psnr_rgb=r.psnr_rgb + 30) for r in grid("lic")]
    bd = summarised(grid("jpeg"), lifted)["codecs"][1]["bd_rate_psnr"]
    assert bd["percent"] is None and "no quality in common" in bd["why"]


def test_published_anchors_need_no_images(tmp_path):
    curve = {
        "name": "X",
        "family": "classical",
        "source": "here",
        "bpp": [0.1, 0.5],
        "psnr_rgb": [29, 39],
        "ms_ssim": None,
    }
    (tmp_path / "curves.json").write_text(json.dumps({"curves": [curve]}))
    published = curves.read_published(tmp_path / "curves.json")
    codecs, _ = curves.measured(grid("jpeg"))
    account = summary.summarise(codecs, published[0], published)
    assert account["anchor"] == "X (published)" and account["codecs"][0]["bd_rate_psnr"]["percent"] is not None
    assert "interval" not in account["codecs"][0]["bd_rate_psnr"]
    assert "no MS-SSIM was published" in account["codecs"][0]["bd_rate_ms_ssim"]["why"]
    heads, cells = summary.table(account)
    assert all(len(line) == len(heads) for line in cells) and cells[1][0] == "X (published)"


def test_a_damaged_file_of_published_curves_is_named(tmp_path):
    (tmp_path / "curves.json").write_text('{"curves": [{"name": "X"}]}')
    with pytest.raises(ValueError, match="curves.json is no file of published curves"):
        curves.read_published(tmp_path / "curves.json")


def test_lossless_size_is_bits_over_all_subpixels_and_speed_over_all_seconds():
    known = [row("png", "a", None, bpp=12.0), row("png", "b", None, bpp=6.0, width=300, encode_s=0.5)]
    codecs, _ = curves.measured(known, lossless=True)
    (entry,) = summary.summarise_lossless(codecs)["codecs"]
    assert entry["bits_per_subpixel"] == pytest.approx((12 * 8000 + 6 * 24000) / 32000 / 3)
    assert entry["encode_mb_per_s"] == pytest.approx(3 * 32000 / 1e6 / 0.6)


def test_a_comparison_tells_what_changed_and_what_did_not():
    before = grid("jpeg") + grid("lic", codec_version="1") + grid("webp")
    after = grid("jpeg") + grid("lic", 0.9, codec_version="2", decode_s=0.02) + grid("avif")
    account = compare.compare(before, after)
    jpeg, lic = account["codecs"]
    assert jpeg["identical"] and jpeg["bd_rate_psnr"]["percent"] == 0
    assert not lic["identical"] and lic["bd_rate_psnr"]["percent"] == pytest.approx(-10)
    assert lic["bytes_percent"] == pytest.approx(-10) and lic["decode_ratio"] == pytest.approx(2)
    assert lic["psnr_change"] == 0
    assert account["only_before"] == ["webp"] and account["only_after"] == ["avif"]
    text = compare.text(account)
    assert "no change" in text and "−10.0 %" in text and "only in the second file: avif" in text


def test_a_comparison_has_each_metric_of_both_files_over_the_same_images():
    before = scored("lic") + [row("lic", "d", float(k), bpp=0.1 * k, psnr_rgb=30.0 + k) for k in range(1, 6)]
    after = scored("lic", 0.8, scores=(32, 52, 72, 82, 97), images="abcd", codec_version="2")
    (change,) = compare.compare(before, after)["codecs"]
    assert change["metrics"] == ["psnr", "ms_ssim", "ssimulacra2"] and len(change["images"]) == 4
    assert list(change["bd_rate_ssimulacra2"]["per_image"].values())[3] is None
    assert change["ssimulacra2_change"] == pytest.approx(2) and change["bd_rate_ssimulacra2"]["percent"] < -20
    text = compare.text(compare.compare(before, after))
    assert "SSIMULACRA 2" in text and "+2.0000" in text


def test_a_comparison_keeps_to_the_pictures_of_both_files():
    account = compare.compare(grid("lic", images="abc"), grid("lic", images="bcd"))
    assert account["codecs"][0]["images"] == ["b.png", "c.png"]
    nothing = compare.compare(grid("lic", images="a"), grid("lic", images="d"))
    assert nothing["codecs"] == [] and "no image has complete rows" in nothing["remarks"][0]


# ── Plots and commands ───────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_move_apart_no_more_than_needed():
    assert plots._apart([0, 10, 30], 5) == [0, 10, 30]
    assert plots._apart([10, 10, 11], 6) == pytest.approx([13 / 3, 31 / 3, 49 / 3])


def test_equal_rows_draw_equal_files(tmp_path):
    codecs, _ = curves.measured(grid("jpeg") + grid("lic", 0.8))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        plots.save(plots.rate_distortion(codecs), tmp_path / name / "rd")
    for suffix in (".png", ".svg"):
        one, two = ((tmp_path / name / "rd").with_suffix(suffix).read_bytes() for name in ("one", "two"))
        assert one == two and len(one) > 5000


def command(run, add, *words):
    parser = argparse.ArgumentParser()
    add(parser)
    return run(parser.parse_args([str(word) for word in words]))


def evaluate(*words):
    return command(cli.run_evaluate, cli.add_arguments_evaluate, *words)


def test_evaluate_leaves_rows_tables_plots_and_a_page_and_says_the_summary(folder, tmp_path, capsys):
    words = [folder / "waves.png", "--out", tmp_path, "--codecs", "jpeg,webp:m0", "--grid", "jpeg=20,50,80", "-j", "1"]
    assert evaluate(*words, "--grid", "webp:m0=20,50,80", "--viewer", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in told["lossy"]["codecs"]] == ["jpeg", "webp:m0"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"rows.jsonl", "rows.csv", "summary.json", "report.html", "rd_psnr.png", "rd_psnr.svg", "viewer"}
    page, original = (tmp_path / "report.html").read_bytes(), (tmp_path / "rd_psnr.png").read_bytes()
    (tmp_path / "rd_psnr.png").unlink()
    assert command(cli.run_plot, cli.add_arguments_plot, tmp_path) == 0
    assert (tmp_path / "report.html").read_bytes() == page and (tmp_path / "rd_psnr.png").read_bytes() == original
    shots = [json.loads(line) for line in (tmp_path / "viewer" / "viewer.jsonl").read_text().splitlines()]
    assert len(shots) == 1 + 2 * 3
    for shot in shots[1:]:
        least = 0 if shot["codec"] == "webp:m0" else 1
        assert shot["bytes"] <= shot["rate"] * 176 * 168 / 8 or shot["setting"] == least


@pytest.mark.parametrize(
    "words, status, reason",
    [
        (["--codecs", "jpeg,jpgg"], 2, "unknown codec 'jpgg'; known: avif"),
        (["--codecs", "jpeg:zz"], 2, "unknown option 'zz'"),
        (["--codecs", "jpeg", "--grid", "jpeg=a"], 2, "--grid jpeg=a: write CODEC=A,B"),
        (["--codecs", "jpeg", "--grid", "webp=1"], 2, "not among --codecs"),
        (["--codecs", "jpeg", "--metrics", "beauty"], 2, "unknown metric 'beauty'; known: ssimulacra2, butteraugli, cvvdp"),
        (["--codecs", "jpeg", "--published", "none.json"], 2, "none.json"),
        (["--codecs", "jpeg", "--anchor", "webp"], 2, "no anchor 'webp'; there are jpeg"),
    ],
)
def test_arguments_without_sense_are_usage_errors(words, status, reason, folder, tmp_path, capsys):
    assert evaluate(folder / "dot.png", "--out", tmp_path, "-j", "1", *words) == status
    assert reason in capsys.readouterr().err


def test_the_modules_import_neither_torch_nor_matplotlib():
    modules = "cli, columns, compare, curves, peers, plots, report, rows, runner, summary, viewer"
    check = "import sys; print([name for name in ('torch', 'matplotlib', 'imagecodecs') if name in sys.modules])"
    words = [sys.executable, "-c", f"from codec.evaluation import {modules}; {check}"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    assert evaluate(tmp_path, "--out", tmp_path / "out") == 1
    assert "no images in" in capsys.readouterr().err


def test_plot_and_compare_name_a_missing_file(tmp_path, capsys):
    assert command(cli.run_plot, cli.add_arguments_plot, tmp_path) == 1
    assert command(cli.run_compare, cli.add_arguments_compare, tmp_path / "a.jsonl", tmp_path / "b.jsonl") == 1
    assert capsys.readouterr().err.count("no such file") == 2


def test_compare_prints_the_change_of_two_files(tmp_path, capsys):
    rows.append(tmp_path / "a.jsonl", grid("lic"))
    rows.append(tmp_path / "b.jsonl", grid("lic", 0.95))
    assert command(cli.run_compare, cli.add_arguments_compare, tmp_path / "a.jsonl", tmp_path / "b.jsonl") == 0
    assert "−5.0 %" in capsys.readouterr().out
