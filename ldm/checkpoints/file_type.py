"""What a file is, by its first bytes: weights, or what people get in their place."""

HEAD = 512  # bytes that the functions want, as far as the file has them


def is_safetensors(head: bytes) -> bool:
    """Tell whether a file begins as safetensors do: the header's length, then the header as JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def is_torch_file(head: bytes) -> bool:
    """Tell whether a file begins as those of torch.save do, today's zip archive or the pickle of before."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x80"))


def what_it_is(head: bytes) -> str:
    """Say what a file that holds no weights is, from its first bytes, and what to do."""
    start = head.lstrip().lower()
    if not head:
        return "the file is empty; the download or the disk failed, get it again"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the weights themselves; run `git lfs pull` in its repository"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "a web page, saved in place of the weights; open the address in a browser and download from there"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return "a packed archive; unpack it and give the weight file inside"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, or if torch before 0.1.10 saved it, save it again with a newer one"
    shown = " ".join(head[:40].decode("ascii", "replace").split())
    if shown.isascii() and shown.isprintable():
        return f"a text file that begins with {shown!r}; wanted a .safetensors or .ckpt file"
    return (
        f"not a weight file (it begins with {head[:8].hex(' ')}); wanted .safetensors or .ckpt. Get it again"
    )
