"""Ctrl-C ends the studio at once, without a traceback and without files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ldm.bundle import ROOT
from ldm.studio import launch
from ldm.studio.server.network import free_port
from ldm.studio.server.upload_folder import PREFIX, UploadFolder


@pytest.mark.parametrize("moment", ["Starting the studio", "The studio is running"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_studio(moment: str, number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "gradio_img2img.py", "--port", str(free_port("127.0.0.1", None))]
    process = subprocess.Popen(
        [*command, "--checkpoint", "checkpoints/demo", "--device", "cpu"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(moment):
            break
    process.send_signal(number)
    rest = process.stdout.read()
    assert (process.wait(60), rest) == (0, "")
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_the_tunnel_of_share_is_closed(monkeypatch) -> None:
    class Tunnel:
        killed = False

        def kill(self) -> None:
            self.killed = True

    def leave(code: int) -> None:
        raise SystemExit(code)

    tunnel, uploads = Tunnel(), UploadFolder()
    monkeypatch.setattr(launch, "CURRENT_TUNNELS", [tunnel])
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(SystemExit):
        launch._exit(uploads)
    assert tunnel.killed and not uploads.path.exists()
