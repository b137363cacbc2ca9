"""What systems do to programs, for real: full disks, vanishing folders, signals, rivals. One line, and nothing is lost.

Most pictures here are 16-bit noise, which is coded without torch: the program starts and ends at once.
"""

import contextlib
import io
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

import codec

pytestmark = [
    pytest.mark.usefixtures("tiny_model"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="of POSIX systems"),
]
ROOT = Path(__file__).parent.parent
DEADLINE = 120  # seconds that a process may take to where a test waits for it
COMPRESS = [sys.executable, "-m", "codec", "compress", "-l"]


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """A working folder with a picture `in.png`, and in the folder `out` the file `out.lic`, which holds `old`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    noise(rng).save("in.png")
    Path("out").mkdir()
    Path("out/out.lic").write_bytes(b"old")
    return tmp_path


def noise(rng) -> Image.Image:
    return Image.fromarray(rng.integers(0, 2**16, (64, 64), dtype=np.uint16))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def check_old_is_there(process, words: str) -> None:
    """Exit 1 with one line, the old output as it was, and nothing beside it."""
    assert process.returncode == 1, process.stderr
    assert process.stderr.startswith("error: ") and words in process.stderr and process.stderr.count("\n") == 1, process.stderr
    assert Path("out/out.lic").read_bytes() == b"old" and os.listdir("out") == ["out.lic"]


def shell(script: str) -> subprocess.CompletedProcess:
    script = script.replace("COMPRESS", shlex.join(COMPRESS))
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True)


def test_a_file_that_may_not_grow_leaves_what_was_there(folder):
    check_old_is_there(shell("ulimit -f 4; exec COMPRESS in.png out/out.lic"), "file too large")


def mounted(script: str) -> subprocess.CompletedProcess:
    """In a process with mounts of its own; needs root."""
    if sys.platform != "linux" or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no right to mount")
    return shell(f"unshare --mount sh -ec {shlex.quote(script)}")


def test_a_full_disk_leaves_what_was_there(folder):
    done = mounted(
        "mount -t tmpfs -o size=8k tmpfs out; printf old > out/out.lic\n"
        "status=0; COMPRESS in.png out/out.lic || status=$?; ls -A out; cat out/out.lic; exit $status"
    )
    assert done.returncode == 1 and done.stdout == "out.lic\nold"
    assert done.stderr == "error: in.png: out/out.lic cannot be written: no space left on device\n"


def test_a_read_only_folder_leaves_what_was_there(folder):
    if os.geteuid():
        Path("out").chmod(0o555)
        done = shell("COMPRESS in.png out/out.lic")
        Path("out").chmod(0o755)
    else:  # whom permissions do not stop
        done = mounted("mount --bind out out; mount -o remount,ro,bind out; exec COMPRESS in.png out/out.lic")
    check_old_is_there(done, "out/out.lic cannot be written: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
@pytest.mark.parametrize("target", ["-", "/dev/full"])
def test_a_full_pipe_or_device_is_one_line(folder, target):
    done = shell(f"COMPRESS in.png {target} > /dev/full")
    assert done.returncode == 1 and done.stderr.lower().count("no space left on device") == 1 == done.stderr.count("\n")
    done = shell("COMPRESS in.png a.lic --quiet && codec() { PYTHON -m codec inspect a.lic; }; codec > /dev/full".replace("PYTHON", sys.executable))
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr


def test_an_input_that_ends_early_is_one_line(folder, rng):
    packed = codec.compress(noise(rng), lossless=True)
    for command, data in (("compress", png(noise(rng))), ("decompress", packed)):
        for end in (0, len(data) // 2):
            done = subprocess.run(
                [sys.executable, "-m", "codec", command, "-", "out/out.lic" if command == "compress" else "out/out.png"],
                input=data[:end], capture_output=True,
            )  # fmt: skip
            done.stderr = done.stderr.decode()
            check_old_is_there(done, "error: stdin: ")


def test_damaged_metadata_in_a_whole_file_is_no_noise(folder):
    cut = b"MM\0*\0\0\0\x08\0\x05\x01\x0e\0\2\0\0\0\x0e\0\0\0"  # five entries, of which one half is there
    Path("a.lic").write_bytes(codec.compress(np.zeros((8, 8, 3), np.uint8), lossless=True, exif=cut))
    done = subprocess.run([sys.executable, "-m", "codec", "decompress", "a.lic", "a.png"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.startswith("a.lic → a.png") and done.stderr.count("\n") == 1, done.stderr


def started(*arguments: str, fifo: str) -> subprocess.Popen:
    """A process that checks its output and then waits for its input, which a named pipe will bring: see `feeding`."""
    os.mkfifo(fifo)
    return subprocess.Popen([*COMPRESS, fifo, *arguments], stderr=subprocess.PIPE, text=True)


def feeding(process: subprocess.Popen, fifo: str) -> BinaryIO:
    """The pipe to a process of `started`, once that waits for it; a process that ends before says why it did."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):  # nobody reads yet
            return open(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "wb")
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"the process did not come to its input: {process.communicate()[1]}")


def ended(process: subprocess.Popen) -> subprocess.Popen:
    process.stderr = process.communicate(timeout=DEADLINE)[1]
    return process


def test_a_folder_that_vanishes_is_one_line(folder, rng):
    Path("gone").mkdir()
    process = started("gone/out.lic", fifo="fifo")
    with feeding(process, "fifo") as fifo:
        Path("gone").rmdir()
        fifo.write(png(noise(rng)))
    check_old_is_there(ended(process), "gone")
    assert not Path("gone").exists()


def test_an_input_that_is_a_folder_or_vanishes_is_one_line(folder):
    process = started("out", "in.png", "--output-dir", "new", "--quiet", fifo="fifo")
    with feeding(process, "fifo"):  # the first input is being read; meanwhile
        Path("in.png").unlink()
    errors = ended(process).stderr.splitlines()
    assert process.returncode == 1 and [line.split(":")[1] for line in errors] == [" fifo", " out", " in.png"]
    assert os.listdir("new") == []


@pytest.mark.parametrize("option", [[], ["--no-overwrite"]])
def test_two_processes_with_one_output(folder, rng, option):
    """Both have looked at the output before either writes: the file is one of theirs, and whole."""
    pictures = [noise(rng), noise(rng)]
    processes = [started("new.lic", *option, fifo=f"fifo{number}") for number in range(2)]
    with feeding(processes[0], "fifo0") as first, feeding(processes[1], "fifo1") as second:
        for fifo, picture in zip((first, second), pictures, strict=True):
            fifo.write(png(picture))
    statuses = [ended(process).returncode for process in processes]
    assert sorted(statuses) == ([0, 1] if option else [0, 0]), [process.stderr for process in processes]
    files = [codec.compress(picture, lossless=True) for picture in pictures]
    assert Path("new.lic").read_bytes() in ([files[statuses.index(0)]] if option else files)
    assert sorted(os.listdir()) == ["fifo0", "fifo1", "in.png", "new.lic", "out"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_compressing(folder, number, status):
    """On a terminal, where a high effort shows its progress: that is when the signal comes."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "codec", "compress", str(ROOT / "tests/data/kodim23_crop.png"), "out/out.lic", "-e", "9", "-j", "1"]
    with subprocess.Popen(command, stderr=child) as process:
        os.close(child)
        said = b""
        while b"%" not in said:
            assert select.select([parent], [], [], DEADLINE)[0], said
            try:
                said += os.read(parent, 1000)
            except OSError:  # nobody writes any more
                pytest.fail(f"the process ended early: {said.decode()}")
        process.send_signal(number)
        process.wait(DEADLINE)
    os.close(parent)
    assert process.returncode == status
    assert Path("out/out.lic").read_bytes() == b"old" and os.listdir("out") == ["out.lic"]
