"""An encoder of the Hugging Face hub does not depend on what other programs left in its cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.hub import Hub, serve_hub
from helpers.recipes import says

from distilmos.ssl.load import load_ssl

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

NAME = "someone/hubert-small"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
EXTRACTOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The files of a HuBERT with group norm that normalises waveforms."""
    root = tmp_path_factory.mktemp("published")
    shape = {"conv_dim": [8] * 7, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    shape |= {"num_hidden_layers": 1, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    torch.manual_seed(0)
    transformers.HubertModel(transformers.HubertConfig(**shape)).save_pretrained(root)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(root)
    return {name: (root / name).read_bytes() for name in (CONFIG, EXTRACTOR, WEIGHTS)}


@pytest.fixture
def hub(files):
    with serve_hub() as state:
        state.files[NAME] = dict(files)
        yield state


def fetch(hub: Hub, home: Path, *, offline: bool = False) -> subprocess.CompletedProcess[str]:
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "distilmos.cli", "fetch-ssl", NAME]
    return subprocess.run(command, env=os.environ | settings | quiet, capture_output=True, text=True, check=False)


def fetched(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().rpartition(": ")[2])


def cache(hub: Hub, home: Path, *names: str) -> None:
    """Write a cache as transformers leaves it: some files of the present commit, without a list of the others."""
    root = home / "hub" / f"models--{NAME.replace('/', '--')}"
    commit = hub.commit(NAME)
    for path, content in {f"snapshots/{commit}/{name}": hub.files[NAME][name] for name in names}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)


def test_settings_that_another_program_did_not_cache_are_fetched_from_the_same_commit(tmp_path, hub):
    cache(hub, tmp_path, CONFIG, WEIGHTS)
    done = fetch(hub, tmp_path, offline=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert says(done.stderr, NAME, EXTRACTOR)
    path = fetched(fetch(hub, tmp_path))
    assert path.name == hub.commit(NAME)
    assert load_ssl(path).config.normalize_input
    assert not [request for request in hub.requests if "/main" in request or request.endswith(WEIGHTS)]
    hub.requests.clear()
    assert fetched(fetch(hub, tmp_path)) == path
    assert hub.requests == []


@pytest.mark.parametrize("names", [(CONFIG, EXTRACTOR, WEIGHTS), (CONFIG, PROCESSOR, WEIGHTS)])
def test_one_file_of_settings_is_enough(tmp_path, hub, names):
    extractor = json.loads(hub.files[NAME][EXTRACTOR])
    hub.files[NAME][PROCESSOR] = json.dumps({"feature_extractor": extractor}).encode()
    cache(hub, tmp_path, *names)
    assert load_ssl(fetched(fetch(hub, tmp_path, offline=True))).config.normalize_input
    assert hub.requests == []


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_other_files_that_are_not_cached_are_fetched(tmp_path, hub, files, missing):
    cache(hub, tmp_path, *(files.keys() - {missing}))
    assert load_ssl(fetched(fetch(hub, tmp_path))).config.num_layers == 1


def test_a_repository_without_these_settings_is_used_offline_once_this_is_known(tmp_path, hub, capfd):
    del hub.files[NAME][EXTRACTOR]
    cache(hub, tmp_path, CONFIG, WEIGHTS)
    path = fetched(fetch(hub, tmp_path))
    hub.requests.clear()
    assert fetched(fetch(hub, tmp_path, offline=True)) == path
    assert hub.requests == []
    assert not load_ssl(path).config.normalize_input
    assert says(capfd.readouterr().err, path, EXTRACTOR)
