"""Mission text -> frozen sentence embedding: each distinct mission is encoded once and then remembered.

`words` (D = 48) are the numbers of BabyAI's words, which the policy learns to read, see
`mixture_of_experts.WordProjection`; `vocab` (D = 512) is a hashed code of any words in order; `none` (D = 1) is the
same for every mission. Another name is a BERT-type model of Hugging Face (the [CLS] vector of DistilBERT, D = 768),
which may need a download. A checkpoint records the choice and a fingerprint.
Axis letters: N missions, D numbers of an embedding.
"""

import functools
import hashlib
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mop.common.errors import InputError

DEFAULT_MODEL = "distilbert-base-uncased"
VOCAB_DIM = 512
# All words of BabyAI's missions; checkpoints hold their numbers, so new ones go to the end.
WORDS = (
    *(",", "a", "after", "and", "ball", "behind", "blue", "box", "door", "front", "go", "green", "grey", "in", "key"),
    *("left", "next", "object", "of", "on", "open", "pick", "purple", "put", "red", "right", "the", "then", "to", "up"),
    *("yellow", "you", "your"),
)
MAX_WORDS = 48  # of a mission; the longest of BossLevel have 37

PROBE_MISSION = "put the red ball next to the green box, then open the yellow door on your left"
PROBE_TIMEOUT_S = 5.0
MAX_REMEMBERED = 50_000  # distinct missions; 150 MB at D = 768
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
WAY_OUT = "give a model folder with --lang_encoder FOLDER, or use --lang_encoder words"


class MissionEncoder:
    """Mission text -> embedding (D,) float32 on the CPU, D = `dim`.

    `name` is the choice that a checkpoint records: one of EMBEDDED, a Hugging Face id, or a folder.
    `remembered` holds the embeddings of the missions that were encoded before.
    """

    def __init__(self, name: str, encode: Callable[[str], torch.Tensor]):
        """encode: maps one mission to its embedding (D,), float32 on the CPU."""
        self.name = name
        self.remembered: dict[str, torch.Tensor] = {}
        self._encode = encode
        self._probe = encode(PROBE_MISSION)
        self.dim = len(self._probe)

    def embed(self, missions: Sequence[str]) -> torch.Tensor:
        """Embeddings (N, D) float32 of N missions, a new tensor.

        Each mission is encoded alone, so that its embedding does not depend on the missions beside it. Raises
        InputError for an empty mission, and for a word that the encoder's tokenizer does not know.
        """
        rows = torch.empty(len(missions), self.dim)
        for row, mission in zip(rows, missions, strict=True):
            if mission not in self.remembered:
                if not mission.strip():
                    raise InputError("an empty mission has no embedding; check the task's mission text")
                if len(self.remembered) >= MAX_REMEMBERED:  # some tasks hardly ever repeat a mission
                    self.remembered.clear()
                self.remembered[mission] = self._encode(mission)
            row.copy_(self.remembered[mission])
        return rows

    def fingerprint(self) -> list[float]:
        """The first 8 numbers of PROBE_MISSION's embedding, to 4 decimals: they tell one encoder from another."""
        return [round(float(x), 4) for x in self._probe[:8]]

    def check_fingerprint(self, recorded: list[float] | None) -> None:
        """Compare with the fingerprint in a checkpoint; None (a checkpoint without one) passes."""
        if recorded is None:
            return
        own = self.fingerprint()
        if len(recorded) != len(own) or not np.allclose(recorded, own, rtol=0.0, atol=1e-2):
            raise InputError(
                f"the mission encoder {self.name!r} on this machine is not the one the checkpoint was trained with "
                f"(fingerprint {own[:3]}..., recorded {list(recorded)[:3]}...); "
                "give the folder of the original with --lang_encoder FOLDER"
            )


def load_encoder(name: str, location: str | None = None) -> MissionEncoder:
    """The encoder that `name` chooses: one of EMBEDDED, a Hugging Face id, or a model folder.

    location: the folder or id under which a recorded Hugging Face encoder is found on this machine; the encoder keeps
    its recorded `name`. Those that are embedded need no files and ignore it.
    """
    if name in EMBEDDED:
        return MissionEncoder(name, EMBEDDED[name])
    if location in EMBEDDED:
        raise InputError(f"{location!r} cannot stand in for the mission encoder {name!r}; give its folder or id")
    return MissionEncoder(name, _ClsVector(location or name))


def split_words(mission: str) -> list[str]:
    """Split a mission into its words; a comma is one."""
    return mission.lower().replace(",", " , ").split()


def number_words(mission: str) -> torch.Tensor:
    """Number the words of a mission: (MAX_WORDS,) float32, place in WORDS from 1 on, 0 behind the last word."""
    words = split_words(mission)
    if len(words) > MAX_WORDS or (unknown := sorted(set(words) - set(WORDS))):
        why = f"it has over {MAX_WORDS} words" if len(words) > MAX_WORDS else f"{unknown[0]!r} is no word of BabyAI's"
        raise InputError(f"mission {mission!r} cannot be read by --lang_encoder words: {why}; vocab reads any text")
    numbers = torch.zeros(MAX_WORDS)
    numbers[: len(words)] = torch.tensor([1.0 + WORDS.index(word) for word in words])
    return numbers


def encode_by_codes(mission: str) -> torch.Tensor:
    """The `vocab` embedding (VOCAB_DIM,) float32: sum of ±1 codes of (position, word), over the root of the word count.

    Hashed positional codes in the manner of hyperdimensional computing (Kanerva 2009, "Hyperdimensional Computing: An
    Introduction to Computing in Distributed Representation with High-Dimensional Random Vectors"): codes of different
    words or positions are nearly orthogonal, so word order counts. SHAKE-256 supplies the bits, so that any word has a
    code, the same on every machine. The root mean square is about 1, the scale of a DistilBERT vector.
    """
    words = split_words(mission)
    codes = np.stack([code_of_word(k, word) for k, word in enumerate(words)])
    return torch.from_numpy(codes.sum(axis=0) / np.float32(np.sqrt(len(words))))


def code_of_word(k: int, word: str) -> np.ndarray:
    """The ±1 code (VOCAB_DIM,) float32 of a word at place k of a mission."""
    code = hashlib.shake_256(f"{k} {word}".encode()).digest(VOCAB_DIM // 8)
    return 2.0 * np.unpackbits(np.frombuffer(code, np.uint8)).astype(np.float32) - 1.0


# encoders that need no files; the last one does not show the mission
EMBEDDED = {"words": number_words, "vocab": encode_by_codes, "none": lambda mission: torch.ones(1)}


class _ClsVector:
    """mission -> last hidden state (D,) of the [CLS] token of a frozen Hugging Face model."""

    def __init__(self, where: str):
        """where: folder or id."""
        self.where = where
        folder = find_model_folder(where)
        transformers = _import_quietly()
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            # float32 whatever the file holds; safetensors only, so that nothing is unpickled
            self.model, info = transformers.AutoModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        except Exception as error:  # a damaged folder fails in many ways, with no common base class
            raise InputError(f"mission encoder {where!r} cannot be loaded: {_first_line(error)}; {WAY_OUT}") from error
        self.model.eval().requires_grad_(False)
        # transformers fills missing weights with random numbers; only the pooler's do no harm: [CLS] is read before it
        lost = sorted(key for key in info["missing_keys"] if "pooler" not in key)
        if lost:
            raise InputError(f"mission encoder {where!r} lacks {len(lost)} weights, such as {lost[0]}; {WAY_OUT}")
        # transformers builds a tokenizer of special tokens alone where the vocabulary is missing: every word is unknown
        size = getattr(self.model.config, "vocab_size", 0)
        if len(self.tokenizer) < size / 2:
            raise InputError(
                f"the tokenizer of mission encoder {where!r} has {len(self.tokenizer)} entries where its model has "
                f"{size}: the vocabulary is missing; {WAY_OUT}"
            )

    @torch.no_grad()
    def __call__(self, mission: str) -> torch.Tensor:
        tokens = self.tokenizer(mission, return_tensors="pt")
        token_ids = tokens["input_ids"][0].tolist()
        if token_ids[0] != self.tokenizer.cls_token_id:  # position 0 would be a word, maybe blind to those after it
            raise InputError(f"mission encoder {self.where!r} is no BERT-type model (no [CLS] comes first); {WAY_OUT}")
        if self.tokenizer.unk_token_id in token_ids:
            raise InputError(f"mission encoder {self.where!r} does not know every word of {mission!r}; {WAY_OUT}")
        # only these two inputs: DistilBERT takes no token_type_ids
        output = self.model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return output.last_hidden_state[0, 0].clone()  # a copy, or the table's row would hold on to the whole output


def is_folder(where: str) -> bool:
    """Whether `where` means a folder of this machine and no id of the hub.

    An existing directory does, and so does what starts with `.`, `/` or `~`, or has more than one slash.
    """
    return Path(where).expanduser().is_dir() or where.startswith((".", "/", "~")) or where.count("/") > 1


def find_model_folder(where: str) -> Path:
    """The folder on this machine that holds the model `where` (folder or id), downloaded if need be.

    An id is looked up on this machine, then on the hub if that answers within PROBE_TIMEOUT_S.
    """
    if is_folder(where):
        folder = Path(where).expanduser()
        lack = _lack(folder)
        if lack:
            raise InputError(f"mission encoder folder {where!r} {lack}; {WAY_OUT}")
        return folder
    _import_quietly()
    from huggingface_hub import constants, snapshot_download

    # top level only: neither other formats' weights nor a repository's variants in subfolders
    formats = ["*.json", "*.txt", "*.model", "*.safetensors"]
    download = functools.partial(snapshot_download, where, allow_patterns=formats, ignore_patterns="*/*")
    try:
        folder = Path(download(local_files_only=True))
        lack = _lack(folder)
    except Exception:  # whatever the client says, it is not here; a malformed id is named by the probe
        lack = "is not on this machine"
    if lack is None:
        return folder
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"mission encoder {where!r} {lack}, and HF_HUB_OFFLINE forbids a download; {WAY_OUT}")
    try:
        _probe_hub(where)
        folder = Path(download())
    except Exception as error:  # the errors of the hub's client share no base class: network, HTTP, bad id, disk
        raise InputError(
            f"mission encoder {where!r} {lack}, and no download: {_first_line(error)}; {WAY_OUT}"
        ) from error
    lack = _lack(folder)
    if lack:
        raise InputError(f"mission encoder {where!r} as downloaded {lack}; {WAY_OUT}")
    return folder


def _lack(folder: Path) -> str | None:
    """What a model folder lacks, as the end of a sentence about it; None if it lacks nothing."""
    if not folder.is_dir():
        return "does not exist"
    if not (folder / "config.json").is_file():
        return "holds no model (config.json is missing)"
    if not any(folder.glob("*.safetensors")):
        convert = " (convert its *.bin once: AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER))"
        return "holds no weights as *.safetensors" + (convert if any(folder.glob("*.bin")) else "")
    if not any(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        return "holds no tokenizer vocabulary (tokenizer.json or vocab.txt)"
    return None


def _probe_hub(model_id: str) -> None:
    """Ask the hub for `model_id` once. Raises what the hub's client raises, or TimeoutError after PROBE_TIMEOUT_S."""
    from huggingface_hub import HfApi

    answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            HfApi().model_info(model_id, timeout=PROBE_TIMEOUT_S)
            answer.put(None)
        except Exception as error:
            answer.put(error)

    # in a thread, as the client's time limit holds per address of the host and leaves out the name look-up
    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answer.get(timeout=PROBE_TIMEOUT_S)
    except queue.Empty:
        raise TimeoutError(f"the hub did not answer within {PROBE_TIMEOUT_S:.0f} s") from None
    if error is not None:
        raise error


def _import_quietly():
    """The module transformers, without progress bars and log messages, the hub's too; imported late as it is slow."""
    import huggingface_hub
    import transformers

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    huggingface_hub.utils.disable_progress_bars()
    return transformers


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" .:;")
