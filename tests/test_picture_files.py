"""Bytes under a name: whole files or none, links, devices, and what is refused before the work."""

import os
import stat

import pytest

from codec.picture import files


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    path.chmod(0o640)
    files.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["out.bin"]


def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_bytes(str(tmp_path / "out.bin"), b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.bin").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143)])
def test_a_failure_while_writing_leaves_what_was_there(tmp_path, monkeypatch, error):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def fail(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        files.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["out.bin"]


def test_a_link_is_followed_to_its_target(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_bytes(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


def test_a_device_is_written_to_and_not_replaced():
    files.write_bytes(os.devnull, b"new")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_outputs_that_cannot_be_are_reported_before_the_work(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="out.bin exists"):
        files.check_output(str(path), overwrite=False)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        files.check_output(str(tmp_path), overwrite=True)
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        files.check_output(str(tmp_path / "missing" / "out.bin"), overwrite=True)
