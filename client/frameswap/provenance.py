"""What an output says of itself: that it was edited by AI, in words and in machines' terms.

Source: IPTC Photo Metadata Standard, Digital Source Type vocabulary
(cv.iptc.org/newscodes/digitalsourcetype): `compositeWithTrainedAlgorithmicMedia` is for a picture
that combines a captured one with parts that a trained algorithm made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

__all__ = ["describe_edit", "mark_video_metadata", "write_xmp"]

DIGITAL_SOURCE_TYPE: Final = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)


def describe_edit(swapper: str) -> str:
    """The sentence for people; `swapper` is the server's name for its swapper."""
    return f"Edited by AI: faces in this picture were replaced by frameswap (swapper {swapper})."


def mark_video_metadata(metadata: Mapping[str, str], swapper: str) -> dict[str, str]:
    """Return the container metadata of the output: the input's, and what was done to it.

    `comment` is the tag that players show and that MP4, MOV and Matroska all keep; an earlier
    comment stays behind ours. `description` carries the digital source type.
    """
    marked = dict(metadata)
    earlier = [text for key, text in metadata.items() if key.lower() == "comment"]
    for key in list(marked):
        if key.lower() in ("comment", "description"):
            del marked[key]
    marked["comment"] = " ".join([describe_edit(swapper), *earlier])
    described = [text for key, text in metadata.items() if key.lower() == "description"]
    marked["description"] = " ".join([f"Digital source type: {DIGITAL_SOURCE_TYPE}", *described])
    return marked


def write_xmp(swapper: str) -> bytes:
    """An XMP packet for a photo: the sentence and the digital source type."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
        '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">'
        f"{escape(describe_edit(swapper))}"
        "</rdf:li></rdf:Alt></dc:description>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()
