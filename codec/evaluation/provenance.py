"""Where a figure comes from: the commit of this program and the machine it ran on."""

import functools
import os
import platform
import subprocess
from pathlib import Path


@functools.cache
def commit() -> str | None:
    """The last commit that touched the package, "+" behind it if its tracked files differ now; None outside of git."""
    package = Path(__file__).resolve().parents[1]
    try:
        top = _git(package, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != package.parent:  # installed into somebody else's checkout
            return None
        changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return _git(package, "log", "-1", "--format=%h", "--abbrev=12", "--", ".") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def machine() -> str:
    """Processor, number of cores that may be used, Python: what seconds depend on."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"
