"""Streams and names as shells and systems give them: docs/INPUTS.md, "Streams and names". Real commands in real processes.

Flat pictures and 16-bit arrays are coded without a network: the commands start at once.
"""

import io
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import codec
from codec import cli, program
from codec.errors import LimitError
from codec.picture import files

pytestmark = pytest.mark.skipif(os.name != "posix" or not shutil.which("bash"), reason="takes a POSIX shell")
ROOT = Path(__file__).parent.parent
PRELUDE = """
compress() { "$PYTHON" -m codec compress -l --quiet "$@"; }
decompress() { "$PYTHON" -m codec decompress --quiet "$@"; }
codec() { "$PYTHON" -m codec "$@"; }
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> bytes:
    return codec.compress(Image.new("RGB", (9, 5), "teal"), lossless=True)


@pytest.fixture
def folder(tmp_path, monkeypatch, data):
    """Working folder with `in.png`, what it becomes as `in.lic`, and `large.npy`, which becomes more than a pipe holds."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 5), "teal").save("in.png")
    Path("in.lic").write_bytes(data)
    np.save("large.npy", np.random.default_rng(1).integers(0, 2**16, (300, 300), np.uint16))
    return tmp_path


def shell(script: str, **environment: str) -> tuple[str, str]:
    """What bash prints on stdout and on stderr; its own status has to be 0. The commands are quiet unless called by `codec`."""
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)} | environment
    environment.pop("PYTHONUNBUFFERED", None)  # of which it depends whether a stream takes no more now or at the end
    done = subprocess.run(["bash", "-c", PRELUDE + script], capture_output=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(), done.stderr.decode("utf-8", "surrogateescape")


def check(script: str, out: str = "", err: str = "", **environment: str) -> None:
    """All of both streams as regular expressions."""
    found = shell(script, **environment)
    assert re.fullmatch(out, found[0]), found
    assert re.fullmatch(err, found[1]), found


def test_streams_by_name_are_outputs(folder, data):
    check("""
        compress in.png /dev/stdout | cat > a
        compress in.png >(cat > b); until [ -s b ]; do :; done
        mkfifo pipe; cat pipe > c & compress in.png pipe; wait
        { echo -n before; compress in.png /dev/fd/1; echo -n behind; } > d
        compress in.png /dev/stdout > e
        compress --no-overwrite in.png /dev/null
    """)  # fmt: skip
    assert [Path(name).read_bytes() for name in "abce"] == 4 * [data]
    assert Path("d").read_bytes() == b"before" + data + b"behind"
    assert Path("pipe").is_fifo() and not list(folder.glob(".*"))


def test_streams_by_name_are_inputs(folder, data):
    check("""
        compress <(cat in.png) a
        compress /dev/stdin b < in.png
        mkfifo pipe; cat in.png > pipe & compress pipe c; wait
        compress - - < in.png > d
    """)  # fmt: skip
    assert [Path(name).read_bytes() for name in "abcd"] == 4 * [data]


def test_pictures_go_into_streams_as_png_unless_the_name_says_otherwise(folder):
    check("""
        decompress in.lic /dev/stdout | cat > a
        decompress - >(cat > b) < in.lic; until [ -s b ]; do :; done
        mkfifo pipe.bmp; cat pipe.bmp > c & decompress in.lic pipe.bmp; wait
    """)  # fmt: skip
    assert [Image.open(io.BytesIO(Path(name).read_bytes())).format for name in "abc"] == ["PNG", "PNG", "BMP"]


def test_closed_streams_are_neither_used_nor_given_to_files(folder, data):
    """The number of a closed stream goes to the next file that is opened, into which words for people were written."""
    check(
        """
        compress in.png a <&-
        compress in.png b >&-
        compress in.png c 2>&-
        compress in.png d <&- >&- 2>&-
        compress - e <&-; echo $?
        compress in.png - >&-; echo $?
        compress in.png /dev/stdout >&-; echo $?
        codec inspect in.lic >&-; echo $?
        compress gone.png - 2>&- | cat
        codec compress -l in.png f <&- 2>&-
        """,
        out="1\n1\n1\n1\n",
        err="error: stdin: stdin is closed\nerror: in.png: stdout is closed\nerror: in.png: stdout is closed\nerror: in.lic: stdout is closed\n",
    )
    assert [Path(name).read_bytes() for name in "abcdf"] == 5 * [data]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
def test_streams_that_take_no_more(folder):
    """No space is an error; a reader of data that has gone too; a reader of words that has gone is not missed."""
    check(
        """
        compress in.png /dev/full; echo $?
        compress in.png - > /dev/full; echo $?
        codec inspect in.lic > /dev/full; echo $?
        codec inspect --help > /dev/full; echo $?
        codec compress -l in.png a 2> /dev/full; echo $?
        """,
        out="1\n1\n1\n1\n0\n",
        err="error: in.png: no space left on device\nerror: in.png: no space left on device\n(error: no space left on device\n){2}",
    )
    check(
        """
        { compress large.npy -; echo $? > status; } | head -c 9 | wc -c
        { codec inspect in.lic; echo $? >> status; } | true
        { codec compress -l in.png b; echo $? >> status; } 2>&1 | true
        { codec --help; echo $? >> status; } | true
        cat status
        """,
        out="9\n1\n0\n0\n0\n",
        err="error: large.npy: broken pipe\n",
    )
    assert Path("a").read_bytes() == Path("b").read_bytes() == Path("in.lic").read_bytes()


def test_consoles_that_lack_our_characters(folder):
    words = "in.lic: 9{}5 RGB, lossless, no model\n  [0-9]+ B  .*\n"
    check("codec inspect in.lic", out=words.format("×"), PYTHONIOENCODING="utf-8")
    check("codec inspect in.lic; codec compress --help > /dev/null", out=words.format("x"), PYTHONIOENCODING="ascii")
    name = os.fsdecode(b"a\xff\xe2\x82\xac.lic")
    try:
        shutil.copy("in.lic", name)
    except OSError:
        pytest.skip("a file system of names that are text")
    check(
        """
        codec decompress "$NAME" out.png
        codec inspect --json "$NAME" > out.json
        codec inspect "$NAME" | head -1
        """,
        out=r"a\\xff\\u20ac.lic: 9x5 RGB, lossless, no model\n", err=r"a\\xff\\u20ac.lic -> out.png  9x5 RGB  .*\n",
        PYTHONIOENCODING="ascii", NAME=name,
    )  # fmt: skip
    assert json.loads(Path("out.json").read_text("ascii"))["file"] == name


def test_a_windows_code_page_takes_what_it_can(folder):
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "codec", "compress", "-l", str(folder / "in.png"), str(folder / "a")]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT)
    assert done.returncode == 0 and b"in.png -> " in done.stderr and b"\\u" not in done.stderr


WAITING = """
import os, sys
from codec import program

def command(arguments):
    print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
    return 0

for chosen in ({}, {"OMP_WAIT_POLICY": "active"}, {"KMP_BLOCKTIME": "1"}, {"GOMP_SPINCOUNT": "7"}):
    for name in program.WAITING:
        os.environ.pop(name, None)
    os.environ.update(chosen)
    program.run(command, [])
"""


def test_openmp_is_told_how_to_wait_before_torch_is_loaded_unless_somebody_has_chosen():
    done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == (f"{program.SPIN} False\nNone False\nNone False\n7 False\n", "")


def run(capsys, *arguments: str) -> tuple[int, str]:
    status = cli.main(["compress", "-l", "--quiet", *arguments])
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nodir/", "there is no directory"),
        ("nodir/x", "there is no directory"),
        ("in.png/", "there is no directory"),
        ("", "the output has no name"),
        (".", "is a directory"),
        ("loop", "too many levels of symbolic links"),
        ("loop/x", "too many levels of symbolic links"),
        ("lost", "there is no directory"),
        ("x" * 300, "file name too long"),
        ("/dev/fd/99", "bad file descriptor"),
        ("in.png", "both input and output"),
        ("same", "both input and output"),
    ],
)
def test_names_that_can_be_no_output(folder, capsys, monkeypatch, output, words):
    """Nothing is made, nothing is replaced, and it is said before the work."""
    os.symlink("loop", "loop")
    os.symlink("nodir/target", "lost")
    os.symlink("in.png", "same")
    monkeypatch.setattr(cli.api, "compress", None)
    before = sorted(os.listdir())
    status, error = run(capsys, "in.png", output)
    assert status == 1 and error.startswith("error: in.png: ") and words in error and error.count("\n") == 1
    assert sorted(os.listdir()) == before and os.path.islink("loop")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("folder", "is a directory"),
        ("in.png/", "not a directory"),
        ("", "no such file"),
        ("loop", "too many levels of symbolic links"),
        ("x" * 300, "file name too long"),
        ("socket", "no such device|not supported"),
        ("/dev/fd/99", "bad file descriptor"),
        ("/dev/null", "not an image"),
        ("secret", "permission denied"),
    ],
)
def test_names_that_can_be_no_input(folder, capsys, source, words):
    os.symlink("loop", "loop")
    Path("folder").mkdir()
    Path("secret").touch(0)
    if source == "secret" and os.access("secret", os.R_OK):
        pytest.skip("nothing is kept from root")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        status, error = run(capsys, source, "out")
    assert status == 1 and re.fullmatch(rf"error: .*({words}).*\n", error) and not Path("out").exists()


def test_a_dangling_link_gets_its_target(folder, capsys, data):
    os.symlink("target", "link")
    assert run(capsys, "in.png", "link") == (0, "")
    assert os.readlink("link") == "target" and Path("target").read_bytes() == data


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="of Linux")
def test_a_folder_that_takes_no_files_and_one_that_vanishes(folder, capsys, monkeypatch):
    assert run(capsys, "in.png", "/proc/out.lic") == (1, "error: in.png: /proc/out.lic cannot be written: no such file or directory\n")
    Path("brief").mkdir()
    compress = cli.api.compress

    def slow(*arguments, **options):
        Path("brief").rmdir()
        return compress(*arguments, **options)

    monkeypatch.setattr(cli.api, "compress", slow)
    status, error = run(capsys, "in.png", "brief/out.lic")
    assert status == 1 and re.fullmatch("error: in.png: brief/out.lic cannot be written: .*no.* directory.*\n", error)


def test_what_is_open_for_reading_only_is_no_output(folder, capsys):
    with open("in.png") as file:
        status, error = run(capsys, "in.png", f"/dev/fd/{file.fileno()}")
    assert status == 1 and error.endswith("is open for reading only\n")


def test_neither_pictures_from_a_terminal_nor_data_to_it(folder, capsys, monkeypatch):
    controller, terminal = pty.openpty()
    try:
        name = f"/dev/fd/{terminal}"
        assert run(capsys, name, "out") == (1, f"error: {name}: refusing to read a picture from a terminal\n")
        assert run(capsys, os.ttyname(terminal), "out")[1].endswith("refusing to read a picture from a terminal\n")
        assert run(capsys, "in.png", name) == (1, "error: in.png: refusing to write binary data to a terminal\n")
        with open(terminal, closefd=False) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert run(capsys, "-", "out") == (1, "error: stdin: refusing to read a picture from a terminal\n")
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_socket_that_is_open_already_is_a_stream(folder, data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        files.write_bytes(f"/dev/fd/{ours.fileno()}", data)
        ours.shutdown(socket.SHUT_WR)
        assert files.read_bytes(f"/dev/fd/{theirs.fileno()}") == data


def test_a_stream_without_end_ends(monkeypatch):
    monkeypatch.setattr(files, "MOST", 10**6)
    with pytest.raises(LimitError, match="more than 1000000 bytes come from a stream"):
        files.read_bytes("/dev/zero")


def test_stdin_serves_one_name_only(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("in.lic").read_bytes())))
    assert cli.main(["inspect", "-", "-"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("9×5 RGB") == 1 and captured.err.startswith("error: stdin: ")
