"""What a codec under test is, and the register of those that `peers.py` builds.

Look a codec up through `peers`: it is that module which fills the register.
"""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

LOSSLESS = None  # the setting that asks for equal pixels


@dataclass(frozen=True)
class Peer:
    """One codec with its options; picklable by its spec only (see `build`).

    encode(image, setting): an RGB image → the bytes of a complete file; setting LOSSLESS or a value as in `grid`.
    decode(data): those bytes → an RGB image, loaded.
    grid: default settings in the codec's own unit, rising in quality; empty for a codec that is only lossless.
    lossless: whether it has a lossless mode.
    limits: the least and the greatest setting, for searching a rate; whole steps unless `continuous`.
    """

    version: str
    encode: Callable[[Image.Image, float | None], bytes]
    decode: Callable[[bytes], Image.Image]
    grid: tuple[float, ...] = ()
    lossless: bool = True
    limits: tuple[float, float] = (0, 100)
    continuous: bool = False


class UnknownCodec(ValueError):
    """A spec that names no codec, or an option that its codec does not have."""


class MissingCodec(Exception):
    """A known codec whose library or program is not here; the message says how to install it."""


class Options:
    """The words after the name; a builder takes those it knows, what is left over is an error."""

    def __init__(self, spec: str):
        self.spec = spec
        self.name, *self.words = spec.split(":")

    def number(self, letter: str, default: int) -> int:
        for word in self.words:
            if word[:1] == letter and word[1:].isdigit():
                self.words.remove(word)
                return int(word[1:])
        return default

    def choice(self, *choices: str) -> str:
        """The first choice unless another one is named."""
        for word in self.words:
            if word in choices:
                self.words.remove(word)
                return word
        return choices[0]

    def take(self, what: str) -> str:
        if not self.words:
            raise UnknownCodec(f"{self.spec}: {what} missing, as in {self.name}:NAME")
        return self.words.pop(0)


_BUILDERS: dict[str, Callable[[Options, int], Peer]] = {}


def codec(name: str):
    """Puts a builder, (options, threads) → Peer, under a name. It may raise UnknownCodec and MissingCodec."""

    def register(builder):
        _BUILDERS[name] = builder
        return builder

    return register


def names() -> list[str]:
    """Of all codecs, sorted."""
    return sorted(_BUILDERS)


def check(spec: str) -> None:
    """UnknownCodec unless the name is known; does not import the codec's library."""
    name = spec.split(":")[0]
    if name not in _BUILDERS:
        raise UnknownCodec(f"unknown codec {name!r}; known: {', '.join(names())}")


def build(spec: str, threads: int = 1) -> Peer:
    """The codec of a spec, told to use `threads` threads where it can be told. UnknownCodec, MissingCodec."""
    check(spec)
    options = Options(spec)
    peer = _BUILDERS[options.name](options, threads)
    if options.words:
        raise UnknownCodec(f"{spec}: unknown option {options.words[0]!r}")
    return peer
