"""What an output says of itself: how it was edited, in words and in machines' terms.

Source: IPTC Photo Metadata Standard, Digital Source Type vocabulary
(cv.iptc.org/newscodes/digitalsourcetype): `composite` is a mix of elements,
`compositeWithTrainedAlgorithmicMedia` one with elements that a trained algorithm made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from frameswap.contract import Provenance

__all__ = ["Edit", "mark_video_metadata", "write_xmp"]

_VOCABULARY: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OPENINGS: Final[Mapping[Provenance, str]] = {
    "composite": "Edited",
    "compositeWithTrainedAlgorithmicMedia": "Edited by AI",
}


@dataclass(frozen=True)
class Edit:
    """What was done to a picture.

    swapper: the server's name for its swapper.
    provenance: the digital source type that is true of what this swapper makes.
    """

    swapper: str
    provenance: Provenance

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"{_OPENINGS[self.provenance]}: faces in this picture were replaced by frameswap "
            f"(swapper {self.swapper})."
        )

    @property
    def digital_source_type(self) -> str:
        """For machines: a URI of the IPTC's vocabulary."""
        return _VOCABULARY + self.provenance


def mark_video_metadata(metadata: Mapping[str, str], edit: Edit) -> dict[str, str]:
    """Return the container metadata of the output: the input's, and what was done to it.

    `comment` is the tag that players show and that MP4, MOV and Matroska all keep; an earlier
    comment stays behind ours. `description` carries the digital source type.
    """
    marked = dict(metadata)
    earlier = [text for key, text in metadata.items() if key.lower() == "comment"]
    for key in list(marked):
        if key.lower() in ("comment", "description"):
            del marked[key]
    marked["comment"] = " ".join([edit.sentence, *earlier])
    described = [text for key, text in metadata.items() if key.lower() == "description"]
    marked["description"] = " ".join(
        [f"Digital source type: {edit.digital_source_type}", *described]
    )
    return marked


def write_xmp(edit: Edit) -> bytes:
    """An XMP packet for a photo: the sentence and the digital source type."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{edit.digital_source_type}"
        "</Iptc4xmpExt:DigitalSourceType>"
        '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">'
        f"{escape(edit.sentence)}"
        "</rdf:li></rdf:Alt></dc:description>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()
