"""Identify a file by its type on disk and its first bytes: weights, or files that are mistaken for weights."""

import stat
from pathlib import Path

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")  # of weight files
HEAD = 512  # first bytes that the functions below look at


def special_file(path: Path) -> str | None:
    """Return what a path is if reading it could fail or never end: a folder, a pipe, a device or a socket.

    None for regular files and for paths that do not exist.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def is_safetensors(head: bytes) -> bool:
    """Return whether a file starts like safetensors: length of the header, then the header as JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def is_torch_file(head: bytes) -> bool:
    """Return whether a file starts like one of `torch.save`: a zip archive, or a pickle before torch 1.6."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x80")) and not _is_tar(head)


def describe(head: bytes) -> str:
    """Describe a file that is not a weight file by its first bytes, and say what to do."""
    start = head.lstrip().lower()
    if not head:
        return "the file is empty; the download failed or the disk was full, get it again"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the weights themselves; run `git lfs pull` in its repository"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "a web page, saved in place of the weights; open its address in a browser and download from there"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return "a compressed archive; extract the weight file from it"
    if _is_tar(head):
        return (
            "a tar archive; extract the weight file, or if torch before 0.1.10 saved it, save it again with a newer "
            "version"
        )
    text = " ".join(head[:40].decode("ascii", "replace").split())
    if text.isascii() and text.isprintable():
        return f"a text file that starts with {text!r}; expected a .safetensors or .ckpt file"
    return f"not a weight file (it starts with {head[:8].hex(' ')}); expected .safetensors or .ckpt, get it again"


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"
