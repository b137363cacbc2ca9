"""What XMP claims of things that a picture has no more: gain maps, videos, packets behind the first one."""

import re
from xml.parsers import expat

_BEHIND = "pictures behind this one"
# Properties, by namespace, that lead a reader to data behind or beside the picture, which the codec does not keep.
_CLAIMS = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": "gain map",
    "http://ns.apple.com/HDRGainMap/1.0/": "gain map",
    "http://ns.google.com/photos/1.0/container/": _BEHIND,
    "http://ns.google.com/photos/1.0/camera/": "video of a motion photo",
    "http://ns.adobe.com/xmp/note/": "extended XMP",
}
_SOME = {  # of these namespaces only names that begin so
    "http://ns.google.com/photos/1.0/camera/": ("MotionPhoto", "MicroVideo"),
    "http://ns.adobe.com/xmp/note/": ("HasExtendedXMP",),
}
_NAME = re.compile(rb"<[^\s/>]+")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*(?:"[^"]*"|'[^']*')""")
_QUOTE_OR_END = re.compile(rb"""[>"']""")


def without_claims(packet: bytes) -> tuple[bytes, list[str]]:
    """The packet without properties that claim what is gone, all other bytes as they were; and what they claimed.

    A packet that cannot be parsed and yet has such claims is gone as a whole: b"".
    """
    plain = packet.replace(b"\0", b"")  # of UTF-16, too
    if not any(namespace.encode() in plain for namespace in _CLAIMS):
        return packet, []
    try:
        cuts, words = _claims(packet.rstrip(b"\0"))
    except (expat.ExpatError, ValueError):
        return b"", ["XMP (it claims what the picture has no more, and cannot be parsed)"]
    starts, ends = zip(*sorted(cuts), strict=True) if cuts else ((), ())
    kept = zip((0, *ends), (*starts, len(packet)), strict=True)
    return b"".join(packet[start:end] for start, end in kept), words


def _claims(packet: bytes) -> tuple[list[tuple[int, int]], list[str]]:
    """Where the claims begin and end, none inside of another; and words for them."""
    cuts: list[tuple[int, int]] = []
    words: dict[str, None] = {}
    depth = inside = begin = 0  # inside: at which depth the element began that is being cut
    parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
    parser.namespace_prefixes = parser.ordered_attributes = True

    def claimed(name: str) -> str | None:
        namespace, _, local = name.partition(" ")
        if namespace in _CLAIMS and local.startswith(_SOME.get(namespace, "")):
            words[_CLAIMS[namespace]] = None
            return local
        return None

    def start(name: str, attributes: list[str]) -> None:
        nonlocal depth, inside, begin
        depth += 1
        if inside:
            return
        if claimed(name):
            inside, begin = depth, parser.CurrentByteIndex
            return
        gone = {
            ":".join(reversed(local.split(" "))).encode()  # "name prefix"
            for attribute in attributes[::2]
            if (local := claimed(attribute))
        }
        if gone:
            place = _NAME.match(packet, parser.CurrentByteIndex).end()
            while found := _ATTRIBUTE.match(packet, place):
                place = found.end()
                if found[1] in gone:
                    cuts.append(found.span())

    def end(name: str) -> None:
        nonlocal depth, inside
        if inside == depth:
            inside, stop = 0, _end_of_tag(packet, begin)
            if packet[stop - 2 : stop] != b"/>":  # of an empty element, the parser's place is another one
                stop = _end_of_tag(packet, parser.CurrentByteIndex)
            cuts.append((begin, stop))
        depth -= 1

    def refuse(*_) -> None:
        raise ValueError("XMP has no document type")

    parser.StartElementHandler, parser.EndElementHandler, parser.StartDoctypeDeclHandler = start, end, refuse
    parser.Parse(packet, True)
    return cuts, [word for word in words if word != _BEHIND or len(words) == 1]  # unless another says what they are


def _end_of_tag(packet: bytes, place: int) -> int:
    """Where the tag that begins at `place` ends."""
    while (found := _QUOTE_OR_END.search(packet, place)) and found[0] != b">":
        place = packet.index(found[0], found.end()) + 1
    if found is None:
        raise ValueError("not the text that was parsed")
    return found.end()
