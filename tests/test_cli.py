"""The command line as people and scripts meet it: arguments, exit status, streams, files. A tiny model codes here."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import codec
from codec import api, cli
from codec.picture import files

pytestmark = pytest.mark.usefixtures("tiny_model")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch, photo):
    """An empty working folder with one photograph, `in.png`."""
    monkeypatch.chdir(tmp_path)
    photo.save("in.png")
    return tmp_path


def run(*arguments: str) -> int:
    try:
        return cli.main(list(arguments))
    except SystemExit as end:
        return end.code


def check_run(capsys, *arguments: str, status: int = 0, err: str = "", out: str = "") -> None:
    """One command: its exit status, and all of its standard error and output as regular expressions."""
    assert run(*arguments) == status
    streams = capsys.readouterr()
    assert re.fullmatch(err, streams.err), streams.err
    assert re.fullmatch(out, streams.out), streams.out


FIGURES = r"  [\d\u2009]+ B  \d+\.\d{3} bpp  \d+\.\d s\n"


def test_a_picture_goes_into_a_file_and_back_with_one_line_each(folder, capsys):
    check_run(capsys, "compress", "in.png", "out.bin", err=rf"in\.png → out\.bin{FIGURES}")
    check_run(capsys, "decompress", "out.bin", "back.png", err=r"out\.bin → back\.png  96×64 RGB  \d+\.\d s\n")
    assert (folder / "out.bin").read_bytes() == codec.compress(Image.open("in.png"))
    with Image.open("back.png") as back:
        assert back.tobytes() == codec.decompress((folder / "out.bin").read_bytes()).tobytes()


def test_the_output_may_be_named_by_an_option(folder, capsys):
    check_run(capsys, "compress", "in.png", "-o", "out.bin", "--quiet")
    check_run(capsys, "decompress", "-o", "back.png", "out.bin", "--quiet")
    assert sorted(os.listdir()) == ["back.png", "in.png", "out.bin"]


def test_options_reach_the_library(folder, monkeypatch, capsys):
    seen = {}

    def compress(image, quality, **options):
        seen.update(options, quality=quality)
        return api_compress(image)

    api_compress = api.compress
    monkeypatch.setattr(api, "compress", compress)
    check_run(capsys, "compress", "in.png", "a", "-q", "12.5", "-e", "9", "-j", "2", "--device", "cpu", "--quiet")
    assert (seen["quality"], seen["effort"], seen["threads"], seen["device"]) == (12.5, 9, 2, "cpu")
    check_run(capsys, "compress", "in.png", "a", "--target-bytes", "1.5k", "--quiet")
    assert (seen["target_bytes"], seen["quality"]) == (1500, 75.0)
    check_run(capsys, "compress", "in.png", "a", "--target-bytes", "2M", "--quiet")
    assert seen["target_bytes"] == 2_000_000
    check_run(capsys, "compress", "in.png", "a", "--target-psnr", "33", "--quiet")
    assert (seen["target_psnr"], seen["target_bytes"], seen["lossless"]) == (33.0, None, False)
    check_run(capsys, "compress", "in.png", "a", "--target-ssimulacra2", "-5.5", "--quiet")
    assert (seen["target_ssimulacra2"], seen["target_psnr"]) == (-5.5, None)


def test_several_inputs_go_to_a_folder_that_is_made(folder, capsys):
    Image.open("in.png").save("two.webp")
    check_run(capsys, "compress", "in.png", "two.webp", "--output-dir", "new/folder", "--quiet")
    assert sorted(os.listdir("new/folder")) == ["in.lic", "two.lic"]
    check_run(capsys, "decompress", "new/folder/in.lic", "new/folder/two.lic", "--output-dir", "back", "--quiet")
    assert sorted(os.listdir("back")) == ["in.png", "two.png"]


def test_a_bad_file_is_reported_and_the_rest_go_on(folder, capsys):
    (folder / "bad.png").write_bytes(b"text")
    names = ["bad.png", "missing.png", "in.png"]
    check_run(
        capsys, "compress", *names, "--output-dir", "out", status=1,
        err=r"error: bad\.png: not an image that Pillow can read\n"
        r"error: missing\.png: no such file or directory\n"
        rf"in\.png → out/in\.lic{FIGURES}",
    )  # fmt: skip
    assert os.listdir("out") == ["in.lic"]


@pytest.mark.parametrize("names", [("in.png", "in.webp"), ("in.png", "in.png")])
def test_two_inputs_with_one_output_name_are_refused_before_any_work(folder, capsys, names):
    Image.open("in.png").save("in.webp")
    assert run("compress", *names, "--output-dir", "out") == 2 and not Path("out").exists()
    assert f"{names[0]} and {names[1]} would both become out/in.lic" in capsys.readouterr().err


def test_a_file_that_appears_during_the_work_is_not_replaced(folder, monkeypatch):
    monkeypatch.setattr(files, "check_output", lambda name, overwrite: None)  # as if it came after the check
    Path("out.bin").write_bytes(b"theirs")
    for links in (True, False):
        with monkeypatch.context() as patch:
            if not links:
                patch.setattr("os.link", lambda *names: (_ for _ in ()).throw(PermissionError(1, "no links here")))
            with pytest.raises(FileExistsError, match="not to be replaced"):
                files.write_bytes("out.bin", b"ours", overwrite=False)
            files.write_bytes(f"new{links}", b"ours", overwrite=False)
            assert Path(f"new{links}").read_bytes() == b"ours"
    assert Path("out.bin").read_bytes() == b"theirs" and not list(Path().glob(".*.tmp"))


def test_several_files_draw_a_bar_on_a_terminal_only(folder, capsys, monkeypatch):
    names = ["in.png", "./in.png/../in.png"]
    Image.open("in.png").save("b.png")
    run("compress", "in.png", "b.png", "--output-dir", "out")
    assert "[" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run("compress", "in.png", "b.png", "--output-dir", "out")
    assert "] 1/2" in capsys.readouterr().err
    run("compress", *names[:1], "out.bin")
    run("compress", "in.png", "b.png", "--output-dir", "out", "--quiet")
    assert "/2" not in capsys.readouterr().err


def test_pipes_really_work(photo, rng):
    """Two processes of the real commands, bytes in and out; one codes 16-bit noise, which needs no torch."""
    noise, source = Image.fromarray(rng.integers(0, 2**16, (20, 30), dtype=np.uint16)), io.BytesIO()
    noise.save(source, "PNG")
    packed = subprocess.run(
        [sys.executable, "-m", "codec", "compress", "-l", "-", "-"],
        input=source.getvalue(), capture_output=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert packed.stdout == codec.compress(noise, lossless=True)
    assert packed.stderr.decode().startswith("stdin → stdout  ")
    script = "import sys; from codec.cli import main_decompress; sys.exit(main_decompress())"
    back = subprocess.run(
        [sys.executable, "-c", script, "-", "-", "--quiet"],
        input=codec.compress(photo), capture_output=True, check=True, cwd=ROOT,
    )  # fmt: skip
    with Image.open(io.BytesIO(back.stdout)) as image:
        assert (image.format, image.size, back.stderr) == ("PNG", (96, 64), b"")


def test_a_reader_that_goes_away_is_one_line_and_no_traceback(folder, photo):
    (folder / "in.lic").write_bytes(codec.compress(photo))
    command = [sys.executable, "-m", "codec", "inspect", *[str(folder / "in.lic")] * 2000]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline().startswith(bytes(folder))
        process.stdout.close()
        assert set(process.stderr.read().decode().splitlines()) <= {f"error: {folder / 'in.lic'}: broken pipe"}
    assert process.returncode in (0, 1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_the_output_format_follows_the_suffix(folder, capsys, suffix):
    (folder / "in.lic").write_bytes(codec.compress(Image.open("in.png")))
    check_run(capsys, "decompress", "in.lic", f"back{suffix}", "--quiet")
    with Image.open(f"back{suffix}") as image:
        assert (image.format, image.size) == (Image.registered_extensions()[suffix], (96, 64))


def test_metadata_is_kept_unless_told_otherwise(folder, capsys):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.open("in.png").save("meta.png", exif=exif, icc_profile=b"icc" * 99)
    check_run(capsys, "compress", "meta.png", "a.lic", "--quiet")
    check_run(capsys, "compress", "meta.png", "b.lic", "--quiet", "--no-metadata")
    check_run(capsys, "decompress", "a.lic", "a.jpg", "--quiet")
    check_run(capsys, "decompress", "a.lic", "c.png", "--quiet", "--no-metadata")
    assert list(codec.inspect((folder / "b.lic").read_bytes()).sections) == ["header", "latents"]
    with Image.open("a.jpg") as image:
        assert image.getexif()[0x010E] == "a description" and image.info["icc_profile"] == b"icc" * 99
    with Image.open("c.png") as image:
        assert not {"exif", "icc_profile"} & set(image.info)


def test_an_existing_output_is_replaced_unless_told_otherwise(folder, capsys):
    (folder / "out.bin").write_bytes(b"old")
    check_run(
        capsys, "compress", "in.png", "out.bin", "--no-overwrite", status=1,
        err=r"error: in\.png: out\.bin exists and is not to be replaced\n",
    )  # fmt: skip
    assert (folder / "out.bin").read_bytes() == b"old"
    check_run(capsys, "compress", "in.png", "out.bin", "--quiet")
    assert (folder / "out.bin").read_bytes() != b"old"


def test_a_photograph_is_not_replaced_by_mistake(folder, capsys):
    Image.open("in.png").save("b.png")  # compress *.png, and there were two of them
    before = (folder / "b.png").read_bytes()
    check_run(capsys, "compress", "in.png", "b.png", status=1, err=r"error: in\.png: b\.png exists and is an image.*\n")
    check_run(capsys, "compress", "in.png", "in.png", status=1, err=r"error: in\.png: this file is both .*\n")
    assert (folder / "b.png").read_bytes() == before


@pytest.mark.parametrize(
    ("target", "words"),
    [("missing/out.bin", "there is no directory missing"), ("folder", "is a directory"), ("in.png/x", "no directory")],
)
def test_an_output_that_cannot_be_written_is_one_line(folder, capsys, target, words):
    (folder / "folder").mkdir()
    check_run(capsys, "compress", "in.png", target, status=1, err=rf"error: in\.png: .*{words}.*\n")
    assert sorted(os.listdir()) == ["folder", "in.png"]


def test_bad_files_to_decompress_are_one_line_each(folder, capsys):
    data = codec.compress(Image.open("in.png"))
    bad = {
        "empty": (b"", "truncated file: 0 bytes"),
        "text": (b"some text", "not a compressed picture of this codec"),
        "cut": (data[: len(data) // 2], "truncated file"),
        "flipped": (data[:-1] + bytes([data[-1] ^ 1]), ".+"),
        "newer": (data[:4] + b"\x02" + data[5:], "file format version 2"),
    }
    for name, (content, words) in bad.items():
        (folder / name).write_bytes(content)
        check_run(capsys, "decompress", name, "out.png", status=1, err=rf"error: {name}: {words}[^\n]*\n")
    check_run(capsys, "decompress", "in.png", "out.png", status=1, err=r"error: in\.png: not a compressed picture.*\n")
    (folder / "good").write_bytes(data)
    check_run(capsys, "decompress", "good", "out.png", "--max-pixels", "6143", status=1, err=r"error: good: .* 6143\n")
    check_run(capsys, "decompress", "good", "out.xyz", status=1, err=r"error: good: no image format .*'\.xyz'.*\n")
    assert not (folder / "out.png").exists()


def test_a_mode_that_the_output_format_lacks_is_one_line(folder, capsys):
    (folder / "a.lic").write_bytes(codec.compress(Image.open("in.png").convert("RGBA")))
    check_run(capsys, "decompress", "a.lic", "a.jpg", status=1, err=r"error: a\.lic: .*cannot write mode RGBA as JPEG.*\n")


def test_an_animation_needs_the_first_frame_option(folder, capsys):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save("two.webp", save_all=True, append_images=frames[1:])
    check_run(capsys, "compress", "two.webp", "a", status=1, err=r"error: two\.webp: 2 frames: .*--first-frame\n")
    check_run(capsys, "compress", "two.webp", "a", "--first-frame", "--quiet")


def test_a_target_that_cannot_be_reached_is_one_line_and_no_file(folder, capsys):
    message = r"error: in\.png: 12 bytes cannot be reached: the smallest file has \d+ \(quality 0\)\n"
    check_run(capsys, "compress", "in.png", "a", "--target-bytes", "12", status=1, err=message)
    assert not Path("a").exists()


def test_verify_decodes_and_fails_where_decoding_fails(folder, capsys, monkeypatch):
    check_run(capsys, "compress", "in.png", "a.lic", "--verify", "--quiet")

    def decompress(data, **options):
        raise codec.FormatError("drifted")

    monkeypatch.setattr(api, "decompress", decompress)
    check_run(capsys, "compress", "in.png", "b.lic", "--verify", status=1, err=r"error: in\.png: drifted\n")
    assert not (folder / "b.lic").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["compress"],
        ["compress", "in.png"],
        ["compress", "in.png", "b.png", "c.png"],
        ["compress", "in.png", "b.png", "-o", "c"],
        ["compress", "in.png", "-o", "a", "--output-dir", "b"],
        ["compress", "-", "--output-dir", "b"],
        ["compress", "in.png", "a", "-q", "101"],
        ["compress", "in.png", "a", "-q", "nan"],
        ["compress", "in.png", "a", "-q", "best"],
        ["compress", "in.png", "a", "-e", "10"],
        ["compress", "in.png", "a", "-j", "-1"],
        ["compress", "in.png", "a", "--device", "tpu"],
        ["compress", "in.png", "a", "-q", "5", "-l"],
        ["compress", "in.png", "a", "-q", "75", "--target-bpp", "1"],
        ["compress", "in.png", "a", "--target-psnr", "30", "--target-bytes", "1k"],
        ["compress", "in.png", "a", "--target-psnr", "nan"],
        ["compress", "in.png", "a", "--target-ssimulacra2", "100.5"],
        ["compress", "in.png", "a", "--target-ssimulacra2", "70", "-q", "50"],
        ["compress", "in.png", "a", "--target-bpp", "0"],
        ["compress", "in.png", "a", "--target-bytes", "-5"],
        ["compress", "in.png", "a", "--target-bytes", "k"],
        ["compress", "in.png", "a", "--target-bytes", "5kk"],
        ["decompress", "a"],
        ["inspect"],
    ],
)
def test_wrong_usage_is_status_2_and_writes_nothing(folder, capsys, arguments):
    check_run(capsys, *arguments, status=2, err=r"(?s)usage: codec.*error: .*")
    assert os.listdir() == ["in.png"]


def test_inspect_tells_people_and_programs(folder, capsys):
    data = codec.compress(Image.open("in.png"), 20)
    (folder / "a.lic").write_bytes(data)
    check_run(capsys, "inspect", "a.lic", out=r"a\.lic: 96×64 RGB, quality 20, model [0-9a-f]{8}\n  .* bpp  \(header.*\n")
    assert run("inspect", "--json", "a.lic", "missing", "a.lic") == 1
    streams = capsys.readouterr()
    rows = [json.loads(line) for line in streams.out.splitlines()]
    assert streams.err == "error: missing: no such file or directory\n"
    assert len(rows) == 2 and rows[0]["file"] == "a.lic" and rows[0]["bytes"] == len(data)
    assert rows[0]["sections"] == codec.inspect(data).sections


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_work_and_leaves_nothing_half_written(folder, monkeypatch, capsys, number, status):
    (folder / "out.bin").write_bytes(b"old")
    handler = signal.getsignal(number)

    def interrupt(descriptor):  # in the middle of writing the temporary file
        os.kill(os.getpid(), number)

    monkeypatch.setattr(os, "fsync", interrupt)
    check_run(capsys, "compress", "in.png", "out.bin", status=status)
    assert (folder / "out.bin").read_bytes() == b"old" and sorted(os.listdir()) == ["in.png", "out.bin"]
    assert signal.getsignal(number) is handler


def test_a_full_disk_is_one_line_and_leaves_what_was_there(folder, monkeypatch, capsys):
    (folder / "out.bin").write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    check_run(capsys, "compress", "in.png", "out.bin", status=1, err=r"error: in\.png: out\.bin cannot .*: no space.*\n")
    assert (folder / "out.bin").read_bytes() == b"old" and sorted(os.listdir()) == ["in.png", "out.bin"]


def test_a_traceback_comes_only_with_vv(folder, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("a fault\nof two lines")

    monkeypatch.setattr(api, "compress", fail)
    line = r"error: in\.png: internal error, .*: RuntimeError: a fault of two lines\n"
    check_run(capsys, "compress", "in.png", "a", "-v", status=1, err=line)
    check_run(capsys, "compress", "in.png", "a", "-vv", status=1, err=rf"(?s){line}Traceback.*RuntimeError.*")


def test_verbose_adds_the_bytes_of_each_section(folder, capsys):
    check_run(capsys, "compress", "in.png", "a", "-v", err=r".* bpp  \(header \d+, latents [\d\u2009]+\)  .* s\n")


def test_the_version_is_that_of_the_package(capsys):
    check_run(capsys, "--version", out=rf"codec {re.escape(codec.__version__)}\n")


def many(photo, tmp_path, count: int) -> list[str]:
    """Small pictures of rising size, by name."""
    for number in range(count):
        photo.crop((0, 0, 16 + number, 16)).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(count)]


def test_many_files_in_processes_are_the_same_files_in_the_same_order(photo, tmp_path, capsys):
    names = many(photo, tmp_path, cli.WORTH_PROCESSES)
    (tmp_path / "3.png").write_bytes(b"no picture")
    said, files = [], []
    for folder, threads in (("one", "1"), ("two", "2")):
        assert run("compress", *names, "--output-dir", str(tmp_path / folder), "-j", threads) == 1
        said.append([line.split("  ")[0].replace(f"/{folder}/", "/") for line in capsys.readouterr().err.splitlines()])
        files.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert said[0] == said[1] and len(said[0]) == len(names)
    assert files[0] == files[1] and len(files[0]) == len(names) - 1


def test_a_terminated_batch_ends_at_once_and_leaves_no_half_written_file_and_no_process(photo, tmp_path):
    """Files that take seconds follow two small ones; some of them already wait in the pipes to the processes."""
    names, large = many(photo, tmp_path, 2), photo.resize((400, 400))
    for number in range(cli.WORTH_PROCESSES):
        names.append(str(tmp_path / f"large{number}.png"))
        large.save(names[-1])
    command = [sys.executable, "-m", "codec", "compress", "-l", *names, "--output-dir", str(tmp_path / "out"), "-j", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as batch:
        assert batch.stderr.readline()  # the first file is there, others are on their way
        batch.send_signal(signal.SIGTERM)
        try:
            batch.communicate(timeout=60)  # returns when the last process that holds the pipe has ended
        except subprocess.TimeoutExpired:
            os.killpg(batch.pid, signal.SIGKILL)
            raise
        assert batch.returncode == 143
    files = list((tmp_path / "out").iterdir())
    assert {file.name for file in files} <= {"0.lic", "1.lic"}
    for file in files:
        codec.decompress(file.read_bytes())


def test_a_region_and_a_preview_from_the_command_line(tmp_path, photo, capsys):
    photo.save(tmp_path / "in.png")
    packed = str(tmp_path / "in.lic")
    assert cli.main(["compress", str(tmp_path / "in.png"), packed, "--quiet"]) == 0
    for option, size in ((["--region", "3,4,30,20"], (30, 20)), (["--preview", "8"], (12, 8))):
        assert cli.main(["decompress", *option, packed, str(tmp_path / "out.png"), "--quiet"]) == 0
        with Image.open(tmp_path / "out.png") as image:
            assert image.size == size
    assert cli.main(["decompress", "--region", "90,0,30,20", packed, str(tmp_path / "none.png")]) == 1
    assert "region 90,0,30,20 is not within the picture of 96×64" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
    for wrong in (["--region", "1,2,3"], ["--region", "0,0,0,5"], ["--preview", "4"], ["--preview", "8", "--region", "0,0,1,1"]):
        assert run("decompress", *wrong, packed, str(tmp_path / "none.png")) == 2
