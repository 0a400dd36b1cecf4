"""Small tokenizers built on the spot, one for each chat format that `alpha_umi.transcript` knows.

Each is trained on a few lines of text in a few milliseconds and wrapped the way a downloaded one would be. They differ
where real ones differ: byte-level or SentencePiece-like, with or without a normaliser, with a beginning-of-text token
that a post-processor would add, with added tokens that aren't special, with special tokens among the model's own words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from alpha_umi.transcript import KINDS, NANO_END, add_markers, nano_token

NANO_TOKENS = (*map(nano_token, KINDS), NANO_END)
CHATML_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
CHATML_PLAIN = ("<think>", "</think>", "<tool_call>", "</tool_call>")
LLAMA3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")

_CORPUS = (
    'system user tool planner caller summarizer assistant\n# Tools\n{"name": "weather", "description": "", "params"',
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3, "units": null, "list": [1, 2.5, true]}}',
    "I know the city now, so I call the weather tool next.\nNext: Caller\nNext: Summarizer\nNext: Give up",
    "Answer: It rains in Paris today. Call: Give up: im_start im_end end_of_turn start_of_turn eot_id header_id",
    "<| |> < > the quick brown fox jumps over the lazy dog; tokens cut ... naïve café 東京 привет",
)


@dataclass(frozen=True)
class Sample:
    """A tokenizer to test with.

    Attributes:
        name: Shown in test ids.
        style: What `find_markers` has to recognise it as.
        tokenizer: The tokenizer; shared between tests, so not to be changed.
        normal: What decode(encode(text)) is, up to another ``normal``; the identity if the tokenizer is lossless.
    """

    name: str
    style: str
    tokenizer: PreTrainedTokenizerFast
    normal: Callable[[str], str] = str

    def __str__(self) -> str:
        return self.name


def special(*texts: str, normalized: bool = False) -> list[AddedToken]:
    return [AddedToken(text, special=True, normalized=normalized) for text in texts]


def byte_level(
    added: Sequence[AddedToken | str] = (), normalizer: normalizers.Normalizer | None = None, vocab_size: int = 400
) -> Tokenizer:
    """A byte-level BPE that splits digits, as in GPT-2 and most tokenizers after it; nothing is out of vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def nano(normalizer: normalizers.Normalizer | None = None, vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """α-UMi's own format: one special token a header."""
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(special(*NANO_TOKENS, "<|pad|>"), normalizer, vocab_size),
        eos_token=NANO_END,
        pad_token="<|pad|>",
    )


def chatml(markers_are_special: bool = True) -> PreTrainedTokenizerFast:
    """Qwen-like: NFC, three special tokens, others that are added but not special."""
    markers = [AddedToken(text, special=markers_are_special, normalized=False) for text in CHATML_SPECIAL]
    plain = [AddedToken(text, special=False, normalized=False) for text in CHATML_PLAIN]
    tokenizer = byte_level([*markers, *plain], normalizers.NFC())
    if not markers_are_special:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llama3() -> PreTrainedTokenizerFast:
    """Llama-3-like: its split pattern, and a post-processor that puts the beginning-of-text token before any text."""
    tokenizer = byte_level(special(*LLAMA3_SPECIAL))
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token="<|eot_id|>")


def gemma() -> PreTrainedTokenizerFast:
    """Gemma-like: SentencePiece BPE with byte fallback, the special tokens in the model's own vocabulary too."""
    base = Tokenizer(models.BPE())
    base.normalizer = normalizers.Replace(" ", "▁")
    base.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(base.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(pair) for pair in model["merges"]]
    vocabulary = {token: i for i, token in enumerate([*GEMMA_SPECIAL, *_byte_tokens(), *learned])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(special(*GEMMA_SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>"
    )


def unigram() -> PreTrainedTokenizerFast:
    """A SentencePiece Unigram model with byte fallback and no markers yet, though its vocabulary has their texts."""
    words = sorted({word for line in _CORPUS for word in line.split()})
    letters = sorted({letter for word in words for letter in word})
    scores: dict[str, float] = {"<unk>": 0.0}
    scores |= dict.fromkeys(_byte_tokens(), -12.0)
    scores |= dict.fromkeys(["▁", "\n", *letters], -8.0)
    scores |= {"▁" + word: -5.0 for word in words}
    scores |= {text: -0.1 for text in [*NANO_TOKENS, *GEMMA_SPECIAL] if text not in scores}
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def nfkc() -> PreTrainedTokenizerFast:
    """ChatML under NFKC, its special tokens looked for *after* normalisation: full-width text spells them too."""
    tokenizer = byte_level(special(*CHATML_SPECIAL, normalized=True), normalizers.NFKC())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


def without_markers() -> PreTrainedTokenizerFast:
    """GPT-2-like: no chat format at all."""
    return PreTrainedTokenizerFast(tokenizer_object=byte_level(special("<|endoftext|>")), eos_token="<|endoftext|>")


def letters_only() -> PreTrainedTokenizerFast:
    """Letters of its own corpus and nothing else: whatever it doesn't know is ``<unk>``."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", *NANO_TOKENS], show_progress=False)
    tokenizer.train_from_iterator(["hello world, next caller"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def _byte_tokens() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _spell_bytes(text: str) -> str:
    return re.sub("<0x([0-7][0-9A-F])>", lambda match: chr(int(match[1], 16)), text)


@cache
def samples() -> tuple[Sample, ...]:
    """One of each, built once."""
    word_model = unigram()
    add_markers(word_model)
    return (
        Sample("nano", "nano", nano()),
        Sample("chatml", "chatml", chatml(), lambda text: unicodedata.normalize("NFC", text)),
        Sample("llama3", "llama3", llama3()),
        Sample("gemma", "gemma", gemma(), lambda text: text.replace("▁", " ")),
        Sample("unigram", "nano", word_model, lambda text: _spell_bytes(text.replace("▁", " "))),
        Sample("nfkc", "chatml", nfkc(), lambda text: unicodedata.normalize("NFKC", text)),
    )
