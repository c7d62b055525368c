"""Pocket's tokenizer: CLIP's own kind, byte-level, with merges learned from captions.

Every text can be spelled in bytes, so no word is unknown; words of the captions are one or two tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

__all__ = ["strange_word", "train_tokenizer"]

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(captions: Iterable[str], folder: Path, *, merges: int = 500) -> CLIPTokenizer:
    """Learn merges from captions and save ``vocab.json`` and ``merges.txt`` as CLIP lays them out."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        captions,
        trainers.BpeTrainer(vocab_size=512 + merges, end_of_word_suffix="</w>", initial_alphabet=letters, show_progress=False),
    )
    learned = json.loads(learner.to_str())["model"]["merges"]
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in learned][:merges]
    names = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in pairs), BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in pairs) + "\n")
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return CLIPTokenizer.from_pretrained(folder)


def strange_word(rng: np.random.Generator) -> str:
    """A made-up word, so that letters nobody uses are learned as something to pass over.

    Example:
        >>> strange_word(np.random.default_rng(1)).isalpha()
        True
    """
    consonants, vowels = list("bcdfghjklmnpqrstvwxyz"), list("aeiou")
    count = int(rng.integers(1, 4))
    return "".join(str(rng.choice(consonants)) + str(rng.choice(vowels)) for _ in range(count)) + str(rng.choice(["", "n", "s", "x"]))
