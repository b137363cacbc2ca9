"""What XMP claims of things that a picture has no more: gain maps, videos, packets behind the first one."""

import re
from xml.parsers import expat

# Properties, by namespace, that lead a reader to data behind or beside the picture, which the codec does not keep.
_CLAIMS = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": "gain map",
    "http://ns.apple.com/HDRGainMap/1.0/": "gain map",
    "http://ns.google.com/photos/1.0/container/": "pictures or videos behind this one",
    "http://ns.google.com/photos/1.0/camera/": "video of a motion photo",
    "http://ns.adobe.com/xmp/note/": "extended XMP",
}
_SOME = {  # of these namespaces only names that begin so
    "http://ns.google.com/photos/1.0/camera/": ("MotionPhoto", "MicroVideo"),
    "http://ns.adobe.com/xmp/note/": ("HasExtendedXMP",),
}
_TAG = re.compile(rb"""<(?:[^'">]|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*(?:"[^"]*"|'[^']*')""")


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
    for start, end in sorted(cuts, reverse=True):
        packet = packet[:start] + packet[end:]
    return packet, words


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

    def tag_at(place: int) -> re.Match:
        tag = _TAG.match(packet, place)
        if tag is None:
            raise ValueError("not the text that was parsed")
        return tag

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
            tag = tag_at(parser.CurrentByteIndex)
            cuts.extend(found.span() for found in _ATTRIBUTE.finditer(packet, *tag.span()) if found[1] in gone)

    def end(name: str) -> None:
        nonlocal depth, inside
        if inside == depth:
            inside, tag = 0, tag_at(begin)
            if not tag[0].endswith(b"/>"):  # where an empty element ends has another meaning
                tag = tag_at(parser.CurrentByteIndex)
            cuts.append((begin, tag.end()))
        depth -= 1

    def refuse(*_) -> None:
        raise ValueError("XMP has no document type")

    parser.StartElementHandler, parser.EndElementHandler, parser.StartDoctypeDeclHandler = start, end, refuse
    parser.Parse(packet, True)
    return cuts, list(words)
