"""The local page scores uploads, listens on loopback only and fetches nothing from elsewhere."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import distilmos
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.load import load_ssl

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed")

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("exp") / "model"
    torch.manual_seed(0)
    save_model_dir(directory, build_model(ModelConfig(hidden_dim=16), load_ssl("hubert_tiny"), 10))
    return directory


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    port = free_port()
    log = (tmp_path_factory.mktemp("web") / "log").open("w+")
    command = [sys.executable, "-m", "distilmos.cli", "web", "--model", str(model), "--port", str(port), "--no-browser"]
    command += ["--scale", "0", "100"]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while not Path(log.name).read_text().count(address):
        assert process.poll() is None, Path(log.name).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield address
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)


@pytest.fixture
def wavs(tmp_path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.wav" for name in ("b", "a", "bad")]
    for path in paths[:2]:
        soundfile.write(path, 0.1 * random.standard_normal(20000), 16000)
    paths[2].write_text("not audio")
    return paths


def test_the_page_has_the_scores_of_the_package_on_the_chosen_scale(url, model, wavs):
    expected = [25 * (distilmos.load(model, device="cpu").predict(path).mos - 1) for path in wavs[:2]]
    client = gradio_client.Client(url, verbose=False)
    mos, figure = client.predict(gradio_client.handle_file(wavs[0]), api_name="/score")
    assert float(mos) == pytest.approx(expected[0], abs=0.006)
    assert figure["plot"].startswith("data:image/")
    files = [gradio_client.handle_file(path) for path in wavs]
    table, download = client.predict(files, api_name="/score_several")
    assert [row[0] for row in table["data"]] == ["b.wav", "a.wav", "bad.wav"]
    assert [row[1] for row in table["data"][:2]] == pytest.approx(expected, abs=1e-4)
    assert table["data"][2][1] is None
    assert table["data"][2][3].startswith("bad.wav: ")
    with Path(download).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["b.wav", "a.wav", "bad.wav"]
    assert [float(row["MOS"]) for row in rows[:2]] == pytest.approx(expected, abs=1e-4)


def test_an_upload_is_never_a_list(url, tmp_path, wavs):
    """A list would tell the user which other files exist on this machine."""
    client = gradio_client.Client(url, verbose=False)
    for name, line in {"list.txt": f"{wavs[0]}\n", "wav.scp": f"a {wavs[0]}\n"}.items():
        (tmp_path / name).write_text(line)
        with pytest.raises(gradio_client.exceptions.AppError, match=f"^{name}: "):
            client.predict(gradio_client.handle_file(tmp_path / name), api_name="/score")


def test_it_listens_on_loopback_only(url):
    port = int(url.rpartition(":")[2])
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = {fields[1] for fields in map(str.split, tables.splitlines()) if fields[3] == "0A"}
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_a_browser_shows_the_page(url, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command = [browser, *options, f"--user-data-dir={tmp_path}", "--virtual-time-budget=15000", "--dump-dom", url]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=True).stdout
    text = re.sub(r"<[^>]*>", " ", page)
    for wanted in ("Predicted MOS (from 0 to 100)", "One recording", "Several", "Recording"):
        assert wanted in text
