"""Where the studio listens: an address and a port, or one sentence that names the option."""

import os
import socket

import pytest

from ldm.studio.options import build_parser, check
from ldm.studio.server.network import free_port, in_url, without_proxies


def test_a_busy_port_is_named_or_skipped() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is in use.*--port"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port
    assert free_port("127.0.0.1", None) >= 7860


@pytest.mark.parametrize("host", ["203.0.113.9", "2001:db8::9", "no-such-name.invalid"])
def test_addresses_of_other_machines_are_refused(host) -> None:
    with pytest.raises(ValueError, match=f"--host {host}"):
        free_port(host, None)


def test_ipv6_is_written_in_brackets() -> None:
    assert in_url("::1") == "[::1]" and in_url("127.0.0.1") == "127.0.0.1"
    parser = build_parser()
    options = parser.parse_args(["--host", "[::1]"])
    check(parser, options)
    assert options.host == "::1"


@pytest.mark.parametrize("value", ["abc", "٣", "99999999", "-1", "70000"])
def test_a_port_of_the_environment_is_checked(monkeypatch, capsys, value) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", value)
    parser = build_parser()
    with pytest.raises(SystemExit):
        check(parser, parser.parse_args([]))
    assert "--port" in capsys.readouterr().err


def test_hosting_services_set_port_and_root_path(monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7999")
    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://faces.example/studio")
    monkeypatch.setenv("SPACE_ID", "owner/name")
    parser = build_parser()
    options = parser.parse_args([])
    check(parser, options)
    assert (options.port, options.root_path, options.host) == (
        7999,
        "https://faces.example/studio",
        "0.0.0.0",
    )


def test_a_root_path_is_an_address(capsys) -> None:
    parser = build_parser()
    with pytest.raises(SystemExit):
        check(parser, parser.parse_args(["--root-path", "studio"]))
    assert "--root-path" in capsys.readouterr().err


@pytest.mark.parametrize("needed", [False, True])
def test_proxies_are_not_asked_for_the_page_itself(monkeypatch, needed) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:1080")
    with without_proxies(needed):
        assert "ALL_PROXY" not in os.environ and ("HTTP_PROXY" in os.environ) == needed
        assert not needed or "127.0.0.1" in os.environ["NO_PROXY"]
    assert {"ALL_PROXY", "HTTP_PROXY"} <= os.environ.keys()
