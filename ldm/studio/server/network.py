"""Where the server listens, under which names it is known, and proxies that must not be asked for it."""

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

FIRST_PORT, PORTS = 7860, 100
EVERYWHERE = ("0.0.0.0", "::")
_NOT_OURS = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def free_port(host: str, port: int | None) -> int:
    """Return the port to listen on: the given one, or the first free one from 7860.

    Raises:
        ValueError: the port is in use, or the host is not an address of this machine.
    """
    for candidate in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,):
        # Gradio binds the port on the IPv4 loopback first, whatever the host is.
        if all(_can_bind(one, candidate) for one in dict.fromkeys((host, "127.0.0.1"))):
            return candidate
    if port is None:
        raise ValueError(
            f"all ports in [{FIRST_PORT}, {FIRST_PORT + PORTS - 1}] are in use; set a free one with --port"
        )
    raise ValueError(f"port {port} is in use; set another one with --port, or omit it for the first free one")


def _can_bind(host: str, port: int) -> bool:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
        return True
    except PermissionError as error:
        raise ValueError(f"port {port} needs administrator rights; set --port to one above 1023") from error
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno in _NOT_OURS:
            raise ValueError(
                f"--host {host} is not an address of this machine; use 127.0.0.1 (only this machine) or "
                "0.0.0.0 (all networks)"
            ) from error
        return False


def in_url(host: str) -> str:
    """Return a host as it appears in URLs: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _normalized(names: set[str]) -> set[str]:
    return {name.strip().lower().rstrip(".") for name in names} - {""}


class HostNames:
    """Names under which browsers may ask for the studio.

    A page of another site can let its own name point to this machine (DNS rebinding). Its requests carry that
    name in the Host header, which is how they are recognized; an IP address cannot be rebound.
    """

    def __init__(self, host: str, root_path: str = "", share: bool = False) -> None:
        """Take the values of --host, --root-path and --share."""
        machine = {socket.gethostname(), socket.getfqdn()}
        spaces = os.environ.get("SPACE_HOST", "").split(",")  # set by Hugging Face Spaces
        self._public = _normalized({urlsplit(root_path).hostname or "", *spaces})
        self._names = _normalized({"localhost", host, *machine}) | self._public
        self._everywhere = host in EVERYWHERE
        self._share = share

    def __contains__(self, name: object) -> bool:
        """Return whether a Host header, with or without a port, is one of this machine."""
        if not isinstance(name, str):
            return False
        try:
            host = (urlsplit(f"//{name}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if host in self._names or (self._share and host.endswith(".gradio.live")):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or self._everywhere

    def public(self, netloc: str) -> bool:
        """Return whether an origin is the public address of --root-path, of --share or of a Space."""
        host = (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
        return host in self._public or (self._share and host.endswith(".gradio.live"))


@contextlib.contextmanager
def without_proxies(needed: bool) -> Iterator[None]:
    """Hide the proxies of the environment: Gradio would ask them for the studio's own address.

    Args:
        needed: keep the HTTP proxies, which the tunnel of --share uses, for all addresses but this machine's.
    """
    hidden = [name for name in PROXIES if not needed or "all" in name.lower()]
    saved = {name: os.environ.pop(name) for name in hidden if name in os.environ}
    if needed:
        saved["NO_PROXY"] = os.environ.get("NO_PROXY", "")
        os.environ["NO_PROXY"] = f"{saved['NO_PROXY']},localhost,127.0.0.1".lstrip(",")
    try:
        yield
    finally:
        os.environ.update(saved)
