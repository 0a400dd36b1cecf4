"""The nano tokenizer: a byte-level BPE in which a value has the same tokens wherever it stands.

Copying is most of what calling tools is, and a small model copies what looks the same. So digits stand alone; a
capitalised word, an identifier's part and a number never swallow the space or quote before them (``Velora`` has the
same tokens in a sentence and in JSON), while ordinary lowercase words do take their space, and punctuation runs such
as ``": {"`` are one piece, which keeps schemas short.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from alpha_umi.transcript import KINDS, NANO_END, nano_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD = "<|pad|>"
_PIECES = (
    r" ?[a-z]+(?![\p{L}\p{N}_])"  # an ordinary word, with its space
    r"|[A-Z]?[a-z]+|[A-Z]+|\p{L}+"  # a name, a part of an identifier, any other letters
    r"|\p{N}|_"
    r"| ?[^\s\p{L}\p{N}_]+(?: [^\s\p{L}\p{N}_]+)*"  # punctuation, across single spaces
    r"|\s"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains a tokenizer of ``vocabulary`` pieces, special tokens included."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    special = [PAD, *map(nano_token, KINDS), NANO_END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=24,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=NANO_END,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
