"""Several threads, forked and spawned workers: the same bytes as one call after the other, and no setting left behind."""

import concurrent.futures
import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image

import codec

pytestmark = pytest.mark.usefixtures("tiny_model")


def work(job: tuple[Image.Image, dict]) -> tuple[bytes, bytes]:
    image, options = job
    data = codec.compress(image, **options)
    return data, codec.decompress(data).tobytes()


@pytest.fixture
def jobs(photo) -> list[tuple[Image.Image, dict]]:
    pieces = [photo.crop((left, top, left + 40, top + 30)) for left in (0, 20, 50) for top in (0, 33)]
    ways = ({"quality": 30, "threads": 1}, {"lossless": True, "threads": 1})
    return [(piece, way) for piece in pieces for way in ways]


def test_threads_do_not_disturb_one_another(jobs):
    expected = [work(job) for job in jobs]
    before = torch.get_num_threads(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, jobs)) == expected
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")) == before


def test_threads_with_counts_of_their_own(photo):
    """Whoever asks for a number of threads gets it back as it was, and files decode whatever the neighbours ask for."""
    def one(count: int) -> np.ndarray:
        before = torch.get_num_threads()
        image = codec.decompress(codec.compress(photo, 60, threads=count), threads=3 - count)
        assert torch.get_num_threads() == before
        return np.asarray(image, int)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(one, [1, 2, 1, 2, 2, 1])
    assert all(np.abs(first - other).max() <= 1 for other in others)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_process_that_has_coded_before(method, jobs, photo):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    codec.compress(photo, threads=2)  # OpenMP has a team now, which a forked child lacks
    jobs = [(piece, way | {"threads": threads}) for threads in (0, 2) for piece, way in jobs[:2]]
    expected = [work(job) for job in jobs]
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert list(pool.map(work, jobs, timeout=100)) == expected
