"""Mission encoders: codes without a download, the path of a real model, and the decision without a hub."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import refusal
from scripts import PATIENCE_S, REPOSITORY
from tiny_encoder import COLOURS, build_tiny_encoder

from mop.envs import missions
from mop.envs.babyai import World, babyai_task_ids
from mop.envs.missions import (
    DEFAULT_MODEL,
    MAX_WORDS,
    PROBE_MISSION,
    VOCAB_DIM,
    WORDS,
    encode_by_codes,
    load_encoder,
    number_words,
)

SWAPPED = ["put the red ball next to the green box", "put the green box next to the red ball"]
MISSIONS = ["go to the red ball", *SWAPPED, "open the door on your left, then pick up a key", "go to the red key"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("tiny_encoder"))


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """An empty cache and no network, in this process: the hub's client reads its environment at import only."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def generated_missions() -> list[str]:
    nouns = [f"{colour} {kind}" for colour in COLOURS for kind in ("ball", "box", "key")]
    texts = [f"go to the {noun}" for noun in nouns]
    texts += [f"put the {a} next to the {b}" for a, b in itertools.permutations(nouns, 2)]
    triples = zip(nouns, nouns[5:], COLOURS, strict=False)
    texts += [f"pick up a {a}, then go to the {b} and open a {c} door" for a, b, c in triples]
    return texts


def test_vocab_known_answer():
    encoder = load_encoder("vocab")
    row = encoder.embed(["Go to the red ball, then open a door"])[0]
    assert (encoder.name, encoder.dim, VOCAB_DIM) == ("vocab", 512, 512)
    assert row.dtype == torch.float32 and row.shape == (512,)
    recorded = [4, -4, 2, -4, 0, -2, -2, -4, -2, 0, -2, 2]
    assert (row[:12] * 10**0.5).tolist() == pytest.approx(recorded, abs=1e-5)


def test_vocab_has_the_scale_of_a_layer_norm_and_ignores_case():
    encoder = load_encoder("vocab")
    rows = encoder.embed(generated_missions())
    assert rows.square().mean(dim=1).sqrt().numpy() == pytest.approx(np.ones(len(rows)), abs=0.15)
    assert torch.equal(*encoder.embed(["go to the red ball, now", "Go to the RED ball , now"]))


def test_vocab_tells_missions_apart():
    texts = generated_missions()
    encoder = load_encoder("vocab")
    a, b = encoder.embed(SWAPPED)
    assert torch.cosine_similarity(a, b, dim=0) < 0.8
    rows = torch.nn.functional.normalize(encoder.embed(texts), dim=1)
    cosine = (rows @ rows.T).fill_diagonal_(-1.0)
    assert len(texts) == len(set(texts)) > 300
    assert cosine.max() < 0.99


def test_words_are_numbered_and_others_are_refused():
    encoder = load_encoder("words")
    row = encoder.embed(["Go to the red ball, then open a door"])[0]
    assert (encoder.name, encoder.dim) == ("words", MAX_WORDS)
    words = ["go", "to", "the", "red", "ball", ",", "then", "open", "a", "door"]
    assert [WORDS[int(number) - 1] for number in row[: len(words)]] == words and not row[len(words) :].any()
    assert "zebra" in refusal(encoder.embed, ["go to the zebra"])
    assert "vocab" in refusal(encoder.embed, ["go to " * MAX_WORDS])


@pytest.mark.parametrize("task_id", babyai_task_ids())
def test_every_mission_is_made_of_the_words(task_id):
    """Of all tasks, the longest ones too; numbers of words are in checkpoints, so their order never changes."""
    world = World(task_id)
    for seed in range(5):
        world.reset(seed)
        number_words(world.mission)
    assert WORDS[0] == "," and WORDS[14] == "key" and WORDS[-1] == "your" and len(WORDS) == 33


def test_embeddings_come_in_order_and_are_copies():
    encoder = load_encoder("vocab")
    rows = encoder.embed(["c", "a", "c"])
    assert rows.shape == (3, 512) and torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    rows.zero_()
    assert torch.equal(encoder.embed(["a"])[0], encode_by_codes("a"))
    assert encoder.embed([]).shape == (0, 512)


@pytest.mark.parametrize("mission", ["", "  "])
def test_an_empty_mission_is_an_error(mission):
    encoder = load_encoder("vocab")
    assert "empty mission" in refusal(encoder.embed, ["go to the red ball", mission])
    assert encoder.embed(["go"]).shape == (1, 512)


def test_folder_gives_the_cls_vector(tiny):
    from transformers import AutoModel, AutoTokenizer

    encoder = load_encoder(str(tiny))
    assert (encoder.name, encoder.dim) == (str(tiny), 32)
    model, tokenizer = AutoModel.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)
    batch = tokenizer(MISSIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        plain = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, 0]
    rows = encoder.embed(MISSIONS)
    assert rows.dtype == torch.float32 and not rows.requires_grad
    torch.testing.assert_close(rows, plain, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(rows[1], rows[2], atol=1e-3)  # word order counts


def test_each_distinct_mission_is_encoded_once_and_alone(tiny):
    from torch.nn.modules.module import register_module_forward_hook
    from transformers import DistilBertModel

    encoder = load_encoder(str(tiny))
    batch_sizes = []

    def note(model, args, output):
        if isinstance(model, DistilBertModel):
            assert not model.training
            batch_sizes.append(len(output[0]))

    with register_module_forward_hook(note):
        encoder.embed(MISSIONS * 3)
        encoder.embed(MISSIONS[::-1])
        encoder.fingerprint()
    assert batch_sizes == [1] * len(MISSIONS)
    for mission, together in zip(MISSIONS, encoder.embed(MISSIONS), strict=True):
        assert torch.equal(load_encoder(str(tiny)).embed([mission])[0], together)


def test_location_keeps_the_recorded_name(tiny):
    encoder = load_encoder(DEFAULT_MODEL, location=str(tiny))
    assert (encoder.name, encoder.dim) == (DEFAULT_MODEL, 32)
    assert load_encoder("vocab", location=str(tiny)).name == "vocab"
    refusal(load_encoder, DEFAULT_MODEL, location="vocab")


def test_an_unknown_word_is_an_error(tiny):
    assert "go to the zebra" in refusal(load_encoder(str(tiny)).embed, ["go to the zebra"])


def test_a_tokenizer_without_vocabulary_is_an_error(tmp_path):
    from transformers import BertTokenizer

    folder = build_tiny_encoder(tmp_path)
    BertTokenizer().save_pretrained(folder)
    refusal(load_encoder, str(folder))


def test_missing_weights_are_an_error_not_random_numbers(tmp_path):
    from safetensors.torch import load_file, save_file

    path = build_tiny_encoder(tmp_path) / "model.safetensors"
    weights = load_file(path)
    del weights["transformer.layer.0.ffn.lin1.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    refusal(load_encoder, str(tmp_path))


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ((), ()),
        (("config.json", "pytorch_model.bin"), ("safetensors",)),
        (("config.json", "vocab.txt"), ("weights",)),
        (("config.json", "model.safetensors"), ("vocabulary",)),
        (("config.json", "model.safetensors", "vocab.txt"), ()),
    ],
)
def test_an_unusable_folder_is_one_line(tmp_path, files, named):
    for file in files:
        (tmp_path / file).write_text("")
    line = refusal(load_encoder, str(tmp_path))
    assert all(word in line for word in ("--lang_encoder", str(tmp_path), *named))


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent_model", "models/absent/here"])
def test_a_path_is_never_sought_on_the_hub(name, monkeypatch):
    import huggingface_hub

    asked = []
    for function in ("snapshot_download", "HfApi"):
        monkeypatch.setattr(huggingface_hub, function, lambda *arguments, **options: asked.append(arguments))
    assert name in refusal(load_encoder, name)
    assert asked == []


@pytest.mark.parametrize("name", ["vocab", "tiny"])
def test_fingerprint(name, tiny, tmp_path):
    encoder = load_encoder(str(tiny) if name == "tiny" else name)
    other = load_encoder(encoder.name, location=str(build_tiny_encoder(tmp_path, seed=1)))
    other = load_encoder(str(tmp_path)) if name == "vocab" else other
    recorded = encoder.fingerprint()
    assert len(recorded) == 8 and all(type(x) is float and x == round(x, 4) for x in recorded)
    assert recorded == pytest.approx(encoder.embed([PROBE_MISSION])[0, :8].tolist(), abs=1e-4)
    encoder.check_fingerprint(None)
    encoder.check_fingerprint([x + 0.005 for x in recorded])
    for wrong in (other.fingerprint(), [x + 0.02 for x in recorded], recorded[:7], [float("nan")] * 8):
        line = refusal(encoder.check_fingerprint, wrong)
        assert "--lang_encoder" in line and encoder.name in line


def name_in_fresh_process(name: str, home: Path, **environment: str) -> str:
    """The name of an encoder that a fresh process loads; the hub's cache is `home`."""
    hub = ("HF_", "HUGGING", "TRANSFORMERS_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(hub)}
    load = "import sys; from mop.envs.missions import load_encoder; print(load_encoder(sys.argv[1]).name)"
    command = [sys.executable, "-W", "ignore", "-c", load, name]
    env = {**inherited, "HF_HOME": str(home), "no_proxy": "*", **environment}
    # 60 s: minutes of retries are what this guards against; a decision takes seconds
    return subprocess.run(
        command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    ).stdout.strip()


def test_an_id_in_the_cache_is_found_without_a_hub(tmp_path):
    cache = tmp_path / "hub" / f"models--{DEFAULT_MODEL}"
    build_tiny_encoder(cache / "snapshots" / "0123abcd")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123abcd")
    assert name_in_fresh_process(DEFAULT_MODEL, tmp_path, HF_HUB_OFFLINE="1") == DEFAULT_MODEL


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "nobody/absent-model", "not an id"])
def test_an_absent_id_is_an_error_with_the_way_out(name, no_hub):
    line = refusal(load_encoder, name)
    assert name in line and "--lang_encoder" in line


def test_a_hub_that_never_answers_is_given_up(monkeypatch, no_hub):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(missions, "PROBE_TIMEOUT_S", 0.05)
    never = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, *args, **kwargs: never.wait())
    refusal(load_encoder, DEFAULT_MODEL)
    never.set()
