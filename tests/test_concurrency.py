"""Several threads, forked and spawned workers: the same bytes as one call after the other, and no setting left behind."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

import codec
from codec.networks.execution import execution
from codec.picture import reading

pytestmark = pytest.mark.usefixtures("tiny_model")


def work(job: tuple[Image.Image, dict]) -> tuple[bytes, bytes]:
    image, options = job
    data = codec.compress(image, **options)
    return data, codec.decompress(data).tobytes()


@pytest.fixture
def jobs(photo) -> list[tuple[Image.Image, dict]]:
    pieces = [photo.crop((left, top, left + 40, top + 30)) for left in (0, 50) for top in (0, 33)]
    ways = ({"quality": 30, "threads": 1}, {"lossless": True, "threads": 1})
    return [(piece, way) for piece in pieces for way in ways]


def test_threads_do_not_disturb_one_another(jobs):
    expected = [work(job) for job in jobs]
    before = torch.get_num_threads(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, jobs)) == expected
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")) == before


def test_threads_with_counts_of_their_own(jobs):
    """The bytes of a file do not depend on what the neighbours ask for."""
    jobs = [(piece, way | {"threads": threads}) for threads in (1, 2, 3) for piece, way in jobs[:4]]
    expected = [work(job) for job in jobs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, jobs)) == expected


def in_new_thread(function):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_overlapping_executions_leave_no_thread_count_behind():
    """One ends while another still runs: torch's count for new threads was left at that of the first."""
    before = torch.get_num_threads(), in_new_thread(torch.get_num_threads)
    counts = [count + 1 for count in before]  # neither is what is there already
    first_runs, second_runs, first_ended = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def first():
        with execution("cpu", counts[0]):
            first_runs.set()
            assert second_runs.wait(60)
            seen.append(torch.get_num_threads())
        first_ended.set()

    def second():
        assert first_runs.wait(60)
        with execution("cpu", counts[1] + 1):
            second_runs.set()
            assert first_ended.wait(60)
            seen.append(torch.get_num_threads())
            seen.append(in_new_thread(torch.get_num_threads))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in (pool.submit(first), pool.submit(second)):
            future.result()
    assert seen == [counts[0], counts[1] + 1, before[1]]
    assert (torch.get_num_threads(), in_new_thread(torch.get_num_threads)) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="of POSIX systems")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_pillows_limit_is_in_force_outside_of_our_readers_and_in_forked_children(photo, tmp_path):
    """While threads read pictures, under our limit instead of Pillow's, processes are forked."""
    photo.save(tmp_path / "in.png")
    read, ended = lambda: reading.read_image(str(tmp_path / "in.png")), threading.Event()

    def read_on():
        while not ended.is_set():
            read()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_on) for _ in range(2)]
        statuses = []
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # a child that waits for a lock of its parent
                os._exit(Image.MAX_IMAGE_PIXELS is None or read().size != photo.size)
            statuses.append(os.waitpid(child, 0)[1])
        ended.set()
        for reader in readers:
            reader.result()
    assert statuses == [0] * 20 and Image.MAX_IMAGE_PIXELS is not None


LIMITED = """
import resource, sys
import codec
data = open(sys.argv[1], "rb").read()
codec.decompress(data, region=(0, 0, 8, 8), threads=1)  # what a process needs before the first picture
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 40 * 2**20  # room for the stack of a thread, not for the picture
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    bytearray(2**30)
    sys.exit("the limit is not in force")
except MemoryError:
    pass
try:
    codec.decompress(data, threads=1)
    print("decoded")
except MemoryError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_memory_left_is_a_memory_error(photo, tmp_path):
    (tmp_path / "a.lic").write_bytes(codec.compress(photo.resize((1024, 1024)), 0))
    command = [sys.executable, "-c", LIMITED, tmp_path / "a.lic"]
    # glibc: what is freed goes back at once, and nothing is reserved, or the picture may fit into memory that is mapped already.
    returning = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=60, env=returning)
    if "the limit is not in force" in done.stderr:
        pytest.skip("a system that does not limit memory")
    assert done.stdout.startswith("refused:") and done.stdout.count("\n") == 1, done.stdout + done.stderr


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="of POSIX systems")
def test_forked_workers_of_a_process_that_has_coded_before(jobs, photo):
    """Spawned ones are those of the command line (test_cli) and of docs/SECURITY.md (test_fuzz)."""
    codec.compress(photo, threads=2)  # OpenMP has a team now, which a forked child lacks
    jobs = [(piece, way | {"threads": threads}) for threads in (0, 2) for piece, way in jobs[:2]]
    expected = [work(job) for job in jobs]
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(work, jobs, timeout=100)) == expected
