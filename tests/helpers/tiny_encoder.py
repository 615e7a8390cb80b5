"""A tiny random DistilBERT with a vocabulary of mission words: the real loading path without a download."""

from pathlib import Path

import torch

SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]"
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
WORDS = (
    ", a after and ball behind box door front go in key left location next object of on open pick put right room the "
    "then this to up use you your"
)


def build_tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Write model (D = 32, random by `seed`) and tokenizer into `folder`; the folder."""
    from transformers import BertTokenizer, DistilBertConfig, DistilBertModel, logging

    logging.disable_progress_bar()
    entries = [*SPECIAL.split(), *WORDS.split(), *COLOURS]
    # initializer_range: at the usual 0.02 an untrained [CLS] hardly depends on the mission
    config = DistilBertConfig(
        vocab_size=len(entries), dim=32, hidden_dim=64, n_layers=1, n_heads=2, initializer_range=0.5
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DistilBertModel(config)
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: k for k, word in enumerate(entries)}).save_pretrained(folder)
    return Path(folder)
