"""Metadata of edited photos: EXIF without outdated or private entries, XMP that describes the edit."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET

from PIL import Image, TiffImagePlugin
from PIL.ExifTags import IFD

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RECIPE = "urn:sca-dm:recipe:"
# IPTC's term for a photo of which an algorithm made a part.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_META = "adobe:ns:meta/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_PLACE = (f"{{{_EXIF}}}GPS", "{http://ns.adobe.com/photoshop/1.0/}City", f"{{{IPTC}}}Location")
# Previews and references to images appended to the file (thumbnail, motion photo, gain map): untrue after an edit.
_UNTRUE = (
    "{http://ns.adobe.com/xap/1.0/}Thumbnails",
    "{http://ns.adobe.com/xmp/note/}HasExtendedXMP",
    "{http://ns.google.com/photos/1.0/container/}",
    "{http://ns.google.com/photos/1.0/camera/}",
    "{http://ns.google.com/photos/1.0/image/}",
    "{http://ns.adobe.com/hdr-gain-map/1.0/}",
    f"{{{IPTC}}}DigitalSourceType",
    f"{{{RECIPE}}}",
)
_MAKER_NOTE = 0x927C  # its offsets point into the original file
# Storage of the original's pixels, which the new file defines itself (width to tile sizes, JPEG tables, profile, XMP).
_STORAGE = {*range(256, 263), 273, *range(277, 280), 284, 317, 320, *range(322, 326), 338, 339, 347} | {
    TiffImagePlugin.ICCPROFILE,
    TiffImagePlugin.XMP,
}

for _prefix, _uri in (("x", _META), ("rdf", RDF), ("Iptc4xmpExt", IPTC), ("exif", _EXIF), ("scadm", RECIPE)):
    ET.register_namespace(_prefix, _uri)


def kept_exif(photo: Image.Image, *, gps: bool = False) -> bytes | None:
    """Return a photo's EXIF without thumbnail, and without GPS unless asked; None if it has none or is damaged."""
    try:
        exif = photo.getexif()
        kept = Image.Exif()
        kept.endian = exif.endian
        links = {int(IFD.Exif), int(IFD.GPSInfo)}
        for tag, value in exif.items():
            if tag not in links | _STORAGE:
                kept[tag] = value
        for ifd in (IFD.Exif, IFD.GPSInfo) if gps else (IFD.Exif,):
            entries = {tag: value for tag, value in exif.get_ifd(ifd).items() if tag != _MAKER_NOTE}
            if entries:
                kept[int(ifd)] = entries
        return kept.tobytes() if len(kept) else None
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None


def edited_xmp(original: bytes | str | None, recipe: str, *, gps: bool = False) -> bytes:
    """Return an XMP packet that keeps the original's statements, states an edit by an algorithm, and the recipe."""
    root = _parsed(original)
    graph = root if root.tag == f"{{{RDF}}}RDF" else root.find(f".//{{{RDF}}}RDF")
    assert graph is not None  # _parsed returns no other
    dropped = _UNTRUE if gps else (*_UNTRUE, *_PLACE)
    for description in graph.findall(f"{{{RDF}}}Description"):
        for name in [name for name in description.attrib if name.startswith(dropped)]:
            del description.attrib[name]
        for child in [child for child in description if child.tag.startswith(dropped)]:
            description.remove(child)
    stated = {
        f"{{{RDF}}}about": "",
        f"{{{IPTC}}}DigitalSourceType": SOURCE_TYPE,
        f"{{{RECIPE}}}recipe": recipe,
    }
    ET.SubElement(graph, f"{{{RDF}}}Description", stated)
    body = ET.tostring(root, encoding="utf-8")
    return b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>' + body + b'<?xpacket end="w"?>'


def recipe_in(xmp: bytes | str | None) -> str | None:
    """Return the recipe that an XMP packet states; None if it states none."""
    for description in _parsed(xmp).iter(f"{{{RDF}}}Description"):
        if recipe := description.get(f"{{{RECIPE}}}recipe"):
            return recipe
    return None


def _parsed(xmp: bytes | str | None) -> ET.Element:
    """Return an XMP packet's tree, an empty one if it is missing or damaged."""
    empty = ET.Element(f"{{{_META}}}xmpmeta")
    ET.SubElement(empty, f"{{{RDF}}}RDF")
    data = xmp.encode() if isinstance(xmp, str) else xmp or b""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # XMP has neither; entities can fill the memory
        return empty
    try:
        root = ET.fromstring(data.strip(b"\x00 \r\n"))
    except ET.ParseError:
        return empty
    has_graph = root.tag == f"{{{RDF}}}RDF" or root.find(f".//{{{RDF}}}RDF") is not None
    return root if has_graph else empty
