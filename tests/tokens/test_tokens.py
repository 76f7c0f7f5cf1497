"""Layer-wise tokens: sampled features, k-means, one token per frame."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace

import joblib
import kaldiio
import numpy as np
import pytest
import soundfile
import torch
from torchaudio.compliance.kaldi import fbank

from distilmos.cli import main
from distilmos.data.archive import open_archive
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.dump import merge_shards
from distilmos.data.tables import read_floats, write_table
from distilmos.errors import InputError
from distilmos.ssl.features import FEATURES
from distilmos.ssl.load import load_ssl
from distilmos.ssl.pooling import EPS, pool_layers
from distilmos.ssl.store import save_encoder
from distilmos.tokens.features import dump_features, sample_frames
from distilmos.tokens.forward import ForwardOptions
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.kmeans import learn_kmeans, write_quality_table
from distilmos.tokens.labels import dump_tokens, nearest, read_tokens
from distilmos.tokens.pooled import read_pooled

LENGTHS = (16000, 24000, 9001, 30400)
LAYERS = 6


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """Run stages 2 to 4 on four recordings; return the directory of data, feats, kmeans and tokens."""
    root = tmp_path_factory.mktemp("tokens")
    generator = np.random.default_rng(0)
    utterances = []
    for index, samples in enumerate(LENGTHS):
        path = root / f"u{index}.wav"
        tone = np.sin(np.arange(samples) * 0.02 * (index + 1)) * np.linspace(0, 0.5, samples)
        soundfile.write(path, tone + 0.05 * generator.standard_normal(samples), 16000)
        utterances.append(Utterance(f"u{index}", path, f"s{index % 2}", mos=3.0))
    write_data_dir(root / "data", utterances)
    features(root, root / "feats", jobs=2)
    for layer in range(1, LAYERS + 1):
        learn_kmeans(root / "feats", layer, clusters=10, seed=1, out_dir=root / "kmeans")
    write_quality_table(root / "kmeans")
    tokens(root, root / "tokens", jobs=3)
    return root


def features(root, out, jobs, seed=1):
    for job in range(1, jobs + 1):
        options = ForwardOptions("hubert_tiny", root / "data", out, "cpu", job=job, jobs=jobs)
        dump_features(options, max_frames=120, seed=seed)
    merge_shards(out, jobs)


def tokens(root, out, jobs, ssl="hubert_tiny", batch_seconds=60.0):
    for job in range(1, jobs + 1):
        options = ForwardOptions(str(ssl), root / "data", out, "cpu", batch_seconds, job, jobs)
        dump_tokens(options, root / "kmeans")
    merge_shards(out, jobs)


def counts():
    config = load_ssl("hubert_tiny").config
    return {f"u{index}": config.num_frames(samples) for index, samples in enumerate(LENGTHS)}


def load(directory, layer):
    return dict(kaldiio.load_scp(str(directory / f"layer{layer}.scp")))


def states(index):
    samples, _ = soundfile.read(index, dtype="float32")
    with torch.no_grad():
        return load_ssl("hubert_tiny")(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))[0]


def step(states):
    """The distance between two values of Kaldi's compressed 16-bit matrix."""
    return np.ptp(states) / 65535


def test_sampled_features_are_frames_of_the_hidden_states(flow):
    chosen = sample_frames(counts(), 120, seed=1)
    expected = states(flow / "u3.wav")
    for layer in range(1, LAYERS + 1):
        stored = load(flow / "feats", layer)
        assert sum(len(frames) for frames in stored.values()) == 120
        states_of_u3 = expected[layer - 1][0][chosen["u3"]].numpy()
        np.testing.assert_allclose(stored["u3"], states_of_u3, atol=1e-5 + step(states_of_u3), rtol=0)


def test_sampling_depends_on_the_seed_but_not_on_the_number_of_jobs(flow, tmp_path):
    features(flow, tmp_path / "one", jobs=1)
    features(flow, tmp_path / "other", jobs=1, seed=2)
    before, one, other = (load(d, 4) for d in (flow / "feats", tmp_path / "one", tmp_path / "other"))
    assert list(before) == list(one)
    assert all(np.allclose(before[u], one[u], atol=1e-5 + step(one[u]), rtol=0) for u in before)
    assert not any(np.allclose(before[u], other[u], atol=1e-2) for u in before)


def test_samples_are_spread_in_proportion_to_length():
    lengths = {f"u{i}": 1 + i % 7 for i in range(1000)}
    chosen = sample_frames(lengths, 500, seed=1)
    assert sum(map(len, chosen.values())) == 500
    assert all(np.unique(index).size == index.size and index.max() < lengths[u] for u, index in chosen.items())
    per_length = [sum(len(chosen.get(u, ())) for u in lengths if lengths[u] == n) / (500 * n) for n in (2, 7)]
    assert per_length[0] == pytest.approx(per_length[1], rel=0.4)
    assert {u: len(i) for u, i in sample_frames(lengths, 10**6, 1).items()} == lengths


def test_samples_of_a_large_corpus_come_from_a_part_that_depends_on_the_seed():
    lengths = {f"u{i:04d}": 100 + i % 50 for i in range(1000)}
    drawn = [sample_frames(lengths, 1000, seed) for seed in (1, 1, 2)]
    assert {u: list(i) for u, i in drawn[0].items()} == {u: list(i) for u, i in drawn[1].items()}
    for chosen in drawn:
        assert sum(map(len, chosen.values())) == 1000
        assert 10000 <= sum(lengths[u] for u in chosen) < 10200
    assert len(set(drawn[0]) & set(drawn[2])) < len(drawn[0]) / 3
    more = sample_frames(lengths | {"v": 60}, 1000, 1)
    assert len(set(more) & set(drawn[0])) >= len(drawn[0]) - 1


def test_pooled_layers_are_mean_and_deviation_of_the_hidden_states(flow, tmp_path):
    words = ["--ssl", "hubert_tiny", "--data", str(flow / "data"), "--out", str(tmp_path), "--device", "cpu"]
    for job in (1, 2):
        assert main(["dump-pooled", *words, "--job", str(job), "--jobs", "2"]) == 0
    assert main(["merge-archives", str(tmp_path), "--jobs", "2"]) == 0
    alone, info = read_pooled(tmp_path, list(counts()))
    with_tokens, same = read_pooled(flow / "tokens", list(counts()))
    assert info.fingerprint == same.fingerprint
    np.testing.assert_allclose(alone, with_tokens, atol=1e-4)
    for index, pooled in enumerate(alone):
        frames = np.stack([layer[0].numpy() for layer in states(flow / f"u{index}.wav")])
        deviation = np.sqrt(frames.var(1) + EPS)
        np.testing.assert_allclose(pooled, np.concatenate([frames.mean(1), deviation], axis=1), atol=1e-4)


def test_a_recording_without_a_frame_has_finite_pooled_layers():
    pooled = pool_layers([torch.randn(2, 5, 3)], torch.tensor([0, 5]))
    assert pooled.isfinite().all() and not pooled[0, 0, :3].any()


def test_tokens_equal_the_predictions_of_scikit_learn(flow):
    for index, (utterance, frames) in enumerate(counts().items()):
        expected = states(flow / f"u{index}.wav")
        for layer in (1, 3, 6):
            ids = load(flow / "tokens", layer)[utterance]
            assert ids.dtype == np.int32
            assert ids.shape == (frames,)
            model = joblib.load(flow / "kmeans" / f"layer{layer}.joblib")
            assert (ids == model.predict(expected[layer - 1][0].numpy())).mean() >= 0.99


def test_tokens_do_not_depend_on_the_batch(flow, tmp_path):
    tokens(flow, tmp_path / "alone", jobs=1, batch_seconds=0.1)
    for layer in (1, 6):
        alone, batched = load(tmp_path / "alone", layer), load(flow / "tokens", layer)
        same = np.concatenate([alone[u] == batched[u] for u in alone])
        assert same.mean() >= 0.995  # rounding may move a frame midway between two centroids


@pytest.mark.parametrize(("changes", "least"), [({"precision": "bfloat16"}, 0.9), ({"compiled": True}, 0.995)])
def test_tokens_in_bfloat16_or_compiled_are_nearly_the_same(flow, tmp_path, changes, least):
    dump_tokens(ForwardOptions("hubert_tiny", flow / "data", tmp_path, "cpu", **changes), flow / "kmeans")
    merge_shards(tmp_path, 1)
    for layer in (1, 6):
        other, exact = load(tmp_path, layer), load(flow / "tokens", layer)
        assert np.concatenate([other[u] == exact[u] for u in exact]).mean() >= least


def test_bfloat16_is_computed_in_bfloat16(flow, tmp_path):
    options = ForwardOptions("hubert_tiny", flow / "data", tmp_path, "cpu", precision="bfloat16")
    dump_features(options, max_frames=120, seed=1)
    merge_shards(tmp_path, 1)
    rough, exact = load(tmp_path, 6), load(flow / "feats", 6)
    errors = max(np.abs(rough[u] - exact[u]).max() for u in exact)
    assert 10 * max(map(step, exact.values())) < errors < 0.5


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize(("option", "value"), [("compiled", True), ("precision", "bfloat16")])
def test_features_are_neither_compiled_nor_rounded(flow, tmp_path, name, option, value):
    with pytest.raises(InputError, match=f"{name}: .*--{option.removesuffix('d')}"):
        dump_tokens(ForwardOptions(name, flow / "data", tmp_path, "cpu", **{option: value}), flow / "kmeans")


def test_nearest_is_the_smallest_distance():
    generator = torch.Generator().manual_seed(0)
    frames, centroids = torch.randn(500, 8, generator=generator), torch.randn(20, 8, generator=generator)
    assert nearest(frames, centroids).equal(torch.cdist(frames, centroids).argmin(1))


def test_quality_table(flow):
    quality = json.loads((flow / "kmeans" / "quality.json").read_text())
    assert [row["layer"] for row in quality["layers"]] == list(range(1, LAYERS + 1))
    for row in quality["layers"]:
        frames = np.concatenate(list(load(flow / "feats", row["layer"]).values()))
        model = joblib.load(flow / "kmeans" / f"layer{row['layer']}.joblib")
        distances = ((frames - model.cluster_centers_[model.labels_]) ** 2).sum(1)
        assert row["inertia_per_frame"] == pytest.approx(distances.mean(), rel=1e-3)
        share = np.bincount(model.labels_, minlength=10) / len(frames)
        assert row["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)
        assert (row["empty"], row["tiny"]) == ((share == 0).sum(), (share < 0.01).sum())
        total = ((frames - frames.mean(0)) ** 2).sum(1).mean()
        assert row["explained_variance"] == pytest.approx(1 - distances.mean() / total, abs=1e-4)
    assert (flow / "kmeans" / "quality.md").read_text().count("\n| ") == LAYERS + 2


def failure(capsys, *arguments):
    """Run a command that must refuse its input; return the words of its message."""
    assert main([str(argument) for argument in arguments]) == 2
    return re.split(r"[\s:;,]+", capsys.readouterr().err)


def learned(feats, out, clusters):
    return "learn-kmeans", "--feats", feats, "--layer", 1, "--clusters", clusters, "--out", out


def stored_frames(flow, directory, *matrices):
    """Write features of layer 1; the utterances are u0, u1, ..."""
    directory.mkdir()
    shutil.copy(flow / "feats" / "info.json", directory)
    with open_archive(directory / "layer1") as archive:
        for number, matrix in enumerate(matrices):
            archive.write(f"u{number}", matrix.astype(np.float32))
    return directory


def test_clusters_need_frames(flow, tmp_path, capsys):
    words = failure(capsys, *learned(flow / "feats", tmp_path, 121))
    assert {str(flow / "feats" / "layer1.scp"), "120", "121"} <= set(words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "distinct", "clusters"),
    [
        (np.ones((20, 4)), 1, 8),
        (np.ones((20, 4)), 1, 1),
        (np.arange(20).repeat(4).reshape(20, 4) % 7, 7, 8),
        (np.where(np.arange(20) % 2, 0.0, -0.0).repeat(4).reshape(20, 4), 1, 2),
    ],
    ids=["constant", "constant, one cluster", "seven", "zeros of both signs"],
)
def test_clusters_need_distinct_frames(flow, tmp_path, capsys, frames, distinct, clusters):
    feats = stored_frames(flow, tmp_path / "feats", frames)
    words = failure(capsys, *learned(feats, tmp_path / "kmeans", clusters))
    assert {str(feats / "layer1.scp"), "20", str(distinct), str(clusters)} <= set(words)
    assert not (tmp_path / "kmeans").exists()


def test_as_many_distinct_frames_as_clusters_are_enough(flow, tmp_path):
    feats = stored_frames(flow, tmp_path / "feats", np.arange(20).repeat(4).reshape(20, 4) % 7)
    quality = learn_kmeans(feats, 1, 7, 1, tmp_path / "kmeans")
    assert (quality.empty, quality.explained_variance) == (0, pytest.approx(1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_frames_must_be_finite(flow, tmp_path, capsys, value):
    frames = np.random.default_rng(0).normal(size=(20, 4))
    bad = frames.copy()
    bad[3, 2] = value
    feats = stored_frames(flow, tmp_path / "feats", frames, bad, frames)
    words = failure(capsys, *learned(feats, tmp_path / "kmeans", 2))
    assert str(feats / "layer1.scp") in words and {"u0", "u1", "u2"} & set(words) == {"u1"}
    assert not (tmp_path / "kmeans").exists()


@pytest.mark.parametrize("odd", [np.zeros(4), np.zeros((20, 5))])
def test_frames_must_have_one_shape(flow, tmp_path, capsys, odd):
    feats = stored_frames(flow, tmp_path / "feats", np.random.default_rng(0).normal(size=(20, 4)), odd)
    words = failure(capsys, *learned(feats, tmp_path / "kmeans", 2))
    assert str(feats / "layer1.scp") in words and {"u0", "u1"} & set(words) == {"u1"}


@pytest.mark.parametrize("command", ["dump-feats", "dump-tokens"])
def test_hidden_states_must_be_finite(flow, tmp_path, capsys, command):
    encoder = load_ssl("hubert_tiny")
    with torch.no_grad():
        encoder.layers[3].ffn_norm.bias[0] = torch.nan
    broken = tmp_path / "broken.safetensors"
    save_encoder(encoder, broken)
    shutil.copytree(flow / "kmeans", tmp_path / "kmeans")
    info = TokenInfo.read(tmp_path / "kmeans")
    replace(info, fingerprint=load_ssl(broken).fingerprint()).write(tmp_path / "kmeans")
    arguments = [command, "--ssl", broken, "--data", flow / "data", "--out", tmp_path / "out", "--device", "cpu"]
    words = failure(capsys, *arguments, *(["--kmeans", tmp_path / "kmeans"] if command == "dump-tokens" else []))
    assert str(flow / "u3.wav") in words  # the longest recording is the first
    assert words[words.index("layer") + 1] == "4"
    assert not list(tmp_path.rglob("out/**/*.ark"))


def test_damaged_quality_is_named(flow, tmp_path, capsys):
    shutil.copytree(flow / "kmeans", tmp_path / "kmeans")
    whole = (tmp_path / "kmeans" / "layer2.json").read_text()
    for text in ("{", '{"layer": 2}', whole.replace('"tiny": ', '"tiny": [], "x": ')):
        (tmp_path / "kmeans" / "layer2.json").write_text(text)
        assert str(tmp_path / "kmeans" / "layer2.json") in failure(capsys, "kmeans-table", tmp_path / "kmeans")


def test_another_encoder_is_refused(flow, tmp_path):
    encoder = load_ssl("hubert_tiny")
    with torch.no_grad():
        encoder.norm.weight[0] += 0.1
    save_encoder(encoder, tmp_path / "other.safetensors")
    other, own = encoder.fingerprint(), load_ssl("hubert_tiny").fingerprint()
    with pytest.raises(InputError, match=f"{flow}/kmeans.*{own}.*{other}"):
        tokens(flow, tmp_path / "tokens", jobs=1, ssl=tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=f"{flow}/tokens.*{own}.*{other}"):
        read_tokens(flow / "tokens", (1,), counts(), other)


def test_reading_returns_the_target_layers_and_never_cuts(flow, tmp_path):
    fingerprint = load_ssl("hubert_tiny").fingerprint()
    found, info = read_tokens(flow / "tokens", (2, 5), counts(), fingerprint)
    assert info.clusters == 10
    assert (found["u2"][1] == load(flow / "tokens", 5)["u2"]).all()
    with pytest.raises(InputError, match=rf"layer2\.scp: u1 .*{counts()['u1']} .*3 "):
        read_tokens(flow / "tokens", (2,), counts() | {"u1": 3}, fingerprint)
    with pytest.raises(InputError, match=r"layer2\.scp: u9 "):
        read_tokens(flow / "tokens", (2,), {"u9": 3}, fingerprint)
    (tmp_path / "info.json").write_text((flow / "tokens" / "info.json").read_text())
    with open_archive(tmp_path / "layer1") as archive:
        archive.write("u0", np.array([0, 10, 3], np.int32))
    with pytest.raises(InputError, match=r"layer1\.scp: u0 .*0\.\.9"):
        read_tokens(tmp_path, (1,), {"u0": 3}, fingerprint)


def stored_tokens(flow, directory, ids, frames=3, foreign=False, **changes):
    info = json.loads((flow / "tokens" / "info.json").read_text())
    directory.mkdir(exist_ok=True)
    (directory / "info.json").write_text(json.dumps({**info, **changes}))
    with open_archive(directory / "layer1") as archive:
        archive.write("u0", ids)
    return read_tokens(directory, (1,), {"u0": frames}, None if foreign else info["fingerprint"])[0]["u0"]


def test_one_frame_more_or_less_of_another_encoder_is_cut_or_repeated(flow, tmp_path):
    ids = np.array([3, 1, 2], np.int32)
    for frames, expected in ((2, [3, 1]), (3, [3, 1, 2]), (4, [3, 1, 2, 2])):
        assert stored_tokens(flow, tmp_path, ids, frames, foreign=True).tolist() == [expected]
    for given, frames, foreign in (
        (ids, 1, True),
        (ids, 5, True),
        (ids[:0], 1, True),
        (ids, 2, False),
        (ids, 4, False),
    ):
        with pytest.raises(InputError, match=rf"layer1\.scp: u0 .*{len(given)} .*{frames} "):
            stored_tokens(flow, tmp_path, given, frames, foreign)


def test_encoders_and_features_differ_by_at_most_that_frame():
    hubert, whisper = (load_ssl(name).config.num_frames for name in ("hubert_tiny", "whisper_tiny_en"))
    for samples in range(380, 2000):
        assert 0 <= whisper(samples) - hubert(samples) <= 1
        assert {kind().config.num_frames(samples) for kind in FEATURES.values()} == {hubert(samples)}


def test_best_rq_is_the_nearest_random_vector_to_the_random_projection(flow, tmp_path):
    """The rule of the paper, section 3.1: argmin_i ||norm(c_i) - norm(A x)||."""
    clusters = 300  # more than frames, which k-means refuses
    common = ["--ssl", "best_rq", "--data", str(flow / "data"), "--device", "cpu"]
    assert main(["dump-feats", *common, "--out", str(tmp_path / "feats"), "--max-frames", "120"]) == 0
    assert main(["merge-archives", str(tmp_path / "feats"), "--jobs", "1"]) == 0
    learn = ["learn-kmeans", "--feats", str(tmp_path / "feats"), "--layer", "1", "--clusters", str(clusters)]
    codebooks = []
    for seed in ("1", "1", "2"):
        assert main([*learn, "--seed", seed, "--out", str(tmp_path / "kmeans")]) == 0
        codebooks.append(np.load(tmp_path / "kmeans" / "layer1.npy").astype(np.float64))
    assert (codebooks[0] == codebooks[1]).all() and (codebooks[1] != codebooks[2]).all()
    codebook = codebooks[2]
    assert codebook.shape == (clusters, 16)
    np.testing.assert_allclose(np.linalg.norm(codebook, axis=1), 1, rtol=1e-6)
    assert main(["kmeans-table", str(tmp_path / "kmeans")]) == 0
    quality = json.loads((tmp_path / "kmeans" / "layer1.json").read_text())
    assert quality["frames"] == 120 and quality["perplexity"] > 20
    assert main(["dump-tokens", *common, "--kmeans", str(tmp_path / "kmeans"), "--out", str(tmp_path / "tokens")]) == 0
    assert main(["merge-archives", str(tmp_path / "tokens"), "--jobs", "1"]) == 0
    matrix = FEATURES["best_rq"]().projection.numpy().astype(np.float64)
    limit = np.sqrt(6 / sum(matrix.shape))
    assert matrix.shape == (160, 16) and np.abs(matrix).max() <= limit
    assert matrix.var() == pytest.approx(limit**2 / 3, rel=0.1)
    for index, found in enumerate(load(tmp_path / "tokens", 1).values()):
        samples, _ = soundfile.read(flow / f"u{index}.wav", dtype="float32")
        mel = fbank(torch.from_numpy(samples)[None], sample_frequency=16000, num_mel_bins=80).numpy().astype(np.float64)
        mel = (mel - mel.mean(0)) / mel.std(0)
        assert len(found) == (len(mel) + 1) // 2
        for frame, token in enumerate(found):
            pair = mel[2 * frame], mel[min(2 * frame + 1, len(mel) - 1)]
            projected = np.concatenate(pair) @ matrix
            distances = np.linalg.norm(codebook - projected / np.linalg.norm(projected), axis=1)
            assert distances[token] <= distances.min() + 1e-4


def test_tokens_are_vectors_of_integers(flow, tmp_path):
    for ids in (np.array([0.5, 1, 2], np.float32), np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float32)):
        with pytest.raises(InputError, match=rf"layer1\.scp: u0 .*float32.*{re.escape(str(ids.shape))}"):
            stored_tokens(flow, tmp_path, ids)


def test_ids_above_16_bits_are_kept(flow, tmp_path):
    ids = np.array([0, 32768, 69999], np.int32)
    assert (stored_tokens(flow, tmp_path, ids, clusters=70000) == ids).all()


def test_tokens_tell_which_kmeans_made_them(flow, tmp_path):
    fingerprint = load_ssl("hubert_tiny").fingerprint()
    digest = hashlib.sha256()
    for layer in range(1, LAYERS + 1):
        digest.update(np.load(flow / "kmeans" / f"layer{layer}.npy").tobytes())
    assert read_tokens(flow / "tokens", (), {}, fingerprint)[1].kmeans == digest.hexdigest()[:16]
    shutil.copytree(flow / "kmeans", tmp_path / "kmeans")
    learn_kmeans(flow / "feats", LAYERS, clusters=10, seed=2, out_dir=tmp_path / "kmeans")
    dump_tokens(ForwardOptions("hubert_tiny", flow / "data", tmp_path / "tokens", "cpu"), tmp_path / "kmeans")
    assert read_tokens(tmp_path / "tokens", (), {}, fingerprint)[1].kmeans not in ("", digest.hexdigest()[:16])


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (None, ""),
        (np.zeros(10, np.float32), "float32"),
        (np.zeros((9, 64), np.float32), r"9 .*10 in info\.json"),
        (np.full((10, 64), np.nan, np.float32), ""),
    ],
)
def test_damaged_centroids_are_named(flow, tmp_path, array, value):
    shutil.copytree(flow / "kmeans", tmp_path / "kmeans")
    (tmp_path / "kmeans" / "layer3.npy").write_bytes(b"")
    if array is not None:
        np.save(tmp_path / "kmeans" / "layer3.npy", array)
    options = ForwardOptions("hubert_tiny", flow / "data", tmp_path / "tokens", "cpu")
    with pytest.raises(InputError, match=rf"layer3\.npy: .*{value}"):
        dump_tokens(options, tmp_path / "kmeans")


def test_durations_that_are_not_exact_or_too_long_are_named_with_their_line(flow, tmp_path):
    data = shutil.copytree(flow / "data", tmp_path / "data")
    durations = read_floats(data / "utt2dur")
    write_table(data / "utt2dur", durations | {"u2": durations["u2"] + 0.5})
    with pytest.raises(InputError, match=rf"^{data}/utt2dur:3: u2: "):
        dump_features(ForwardOptions("hubert_tiny", data, tmp_path / "feats", "cpu"), max_frames=20000, seed=1)
    write_table(data / "utt2dur", durations | {"u1": 40.0})
    with pytest.raises(InputError, match=rf"{data}/utt2dur:2: u1: 40\.00"):
        dump_features(ForwardOptions("whisper_tiny_en", data, tmp_path / "feats", "cpu"), max_frames=20000, seed=1)
