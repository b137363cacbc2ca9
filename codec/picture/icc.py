"""ICC profiles: whose colours one describes, and one made from the primaries and the exponent that a file names."""

import struct

import numpy as np

_SPACES = {
    b"RGB ": "RGB",
    b"GRAY": "gray",
    b"CMYK": "CMYK",
    b"Lab ": "Lab",
    b"XYZ ": "XYZ",
    b"YCbr": "YCbCr",
    b"HSV ": "HSV",
}
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x and y of white, red, green, blue
_TYPICAL = 1 / 2.2  # the exponent that files name when they mean sRGB
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def space(profile: bytes) -> str | None:
    """Whose colours a profile describes; None if it is no ICC profile, or one of another kind."""
    return _SPACES.get(profile[16:20]) if profile[36:40] == b"acsp" else None


def fits(profile: bytes, *, gray: bool) -> bool:
    """False for a profile of another kind of colours. What is no ICC profile at all is nobody's business here."""
    return space(profile) in (None, "gray" if gray else "RGB")


def is_srgb(gamma: float | None, chromaticity: tuple[float, ...] | None) -> bool:
    """Whether what a PNG says of its colours is sRGB as far as anybody can see; gamma: of encoding, as in gAMA."""
    same_curve = gamma is None or abs(gamma / _TYPICAL - 1) < 0.05
    return same_curve and (
        chromaticity is None or max(abs(a - b) for a, b in zip(chromaticity, _SRGB, strict=True)) < 0.01
    )


def profile(gamma: float | None, chromaticity: tuple[float, ...] | None, *, gray: bool) -> bytes:
    """A small profile (version 4) for an exponent of encoding (None: sRGB's curve), and for x and y of white, red,
    green and blue (None: sRGB's). ValueError for numbers that no colours have."""
    if gamma is not None and not 0.01 <= gamma <= 10:
        raise ValueError(f"gamma {gamma}")
    if gamma is None or abs(gamma / _TYPICAL - 1) < 0.05:
        curve = _parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    else:
        curve = _parametric(0, 1 / gamma)
    tags = {
        b"desc": _text("from gAMA and cHRM"),
        b"cprt": _text("no copyright, use freely"),
        b"wtpt": _xyz(_D50),
    }
    if gray:
        tags[b"kTRC"] = curve
    else:
        adaptation, primaries = _to_d50(*np.reshape(_SRGB if chromaticity is None else chromaticity, (4, 2)))
        tags[b"chad"] = b"sf32" + bytes(4) + _fixed(adaptation.ravel())
        for letter, column in zip(b"rgb", primaries.T, strict=True):
            tags[bytes([letter]) + b"XYZ"] = _xyz(column)
            tags[bytes([letter]) + b"TRC"] = curve
    return _file(b"GRAY" if gray else b"RGB ", tags)


def _to_d50(white: np.ndarray, *primaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of white and of three primaries -> the matrix that adapts to D50, and the adapted ones as columns."""
    if white[1] <= 0 or white.min() < 0 or any(primary[1] < 0 for primary in primaries):
        raise ValueError("chromaticity")
    to_xyz = np.array([(x, y, 1 - x - y) for x, y in primaries]).T
    white = np.array([white[0], white[1], 1 - white.sum()]) / white[1]
    if abs(np.linalg.det(to_xyz)) < 1e-4:
        raise ValueError("chromaticities on one line")
    to_xyz = to_xyz * np.linalg.solve(to_xyz, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adaptation = np.linalg.solve(_BRADFORD, cones[:, None] * _BRADFORD)
    adapted = adaptation @ to_xyz
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > 4:
        raise ValueError("chromaticity")
    return adaptation, adapted


def _fixed(values) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _parametric(kind: int, *parameters: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(parameters)


def _text(text: str) -> bytes:
    content = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II", 1, 12) + b"enUS" + struct.pack(">II", len(content), 28) + content


def _file(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Header of 128 bytes, table of tags, their contents; those that are equal are stored once."""
    places: dict[bytes, int] = {}
    contents, position = b"", 128 + 4 + 12 * len(tags)
    for content in tags.values():
        if content not in places:
            places[content] = position + len(contents)
            contents += content + bytes(-len(content) % 4)
    table = b"".join(name + struct.pack(">II", places[content], len(content)) for name, content in tags.items())
    body = struct.pack(">I", len(tags)) + table + contents
    header = struct.pack(
        ">I4x4s4s4s4s6H4s4xI8xI12s", 128 + len(body), b"\4\x30\0\0", b"mntr", space, b"XYZ ",
        2000, 1, 1, 0, 0, 0, b"acsp", 0, 0, _fixed(_D50),
    )  # fmt: skip
    return header.ljust(128, b"\0") + body
