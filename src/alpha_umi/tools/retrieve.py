"""Picks the tools that fit an instruction best, where there are more than an agent can be shown."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from alpha_umi.errors import UserError
from alpha_umi.trajectory import Tool

BM25 = "bm25"
K1 = 1.5
B = 0.75
STOP_WORDS = frozenset(
    """a also an and any are as at be been but by can could did do does for from had has have he her his how i if in
    into is it its me my no not of on or our please she so some than that the their them then there these they
    this to was we were what when where which who will with would you your""".split()  # noqa: SIM905
)
"""In few tool descriptions even these are rare, and would decide."""
_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Bm25:
    """BM25 over documents (Robertson and Zaragoza, 2009), with the inverse document frequency that is never negative.

    Args:
        documents: The words of each document.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self._counts = [Counter(words) for words in documents]
        spread = Counter(word for counts in self._counts for word in counts)
        self._weights = {
            word: math.log(1 + (len(documents) - number + 0.5) / (number + 0.5)) for word, number in spread.items()
        }
        mean = sum(map(len, documents)) / len(documents) if documents else 1.0
        self._norms = [K1 * (1 - B + B * len(words) / (mean or 1.0)) for words in documents]

    def scores(self, query: Collection[str]) -> list[float]:
        """How well each document fits the words of a query; 0 if it has none of them."""
        return [
            sum(self._weights[word] * counts[word] * (K1 + 1) / (counts[word] + norm) for word in query if counts[word])
            for counts, norm in zip(self._counts, self._norms, strict=True)
        ]


class Index(Protocol):
    """Finds tools by their name, their description, and the names and descriptions of their parameters."""

    def ranked(self, query: str) -> list[Tool]:
        """All tools, the most relevant to a query first; those that are equally relevant in their order."""
        ...


class ToolIndex:
    """An `Index` that counts words (BM25)."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = tuple(tools)
        self._index = Bm25([words(_text(tool)) for tool in tools])

    def ranked(self, query: str) -> list[Tool]:
        """As of `Index`."""
        return _by_score(self.tools, self._index.scores(words(query)))


class Encoder(Protocol):
    """What a sentence-transformers model does: texts to vectors of length 1, float arrays of shape (texts, width)."""

    def encode_query(self, sentences: list[str], *, normalize_embeddings: bool) -> Any:
        """Vectors of what is looked for."""
        ...

    def encode_document(self, sentences: list[str], *, normalize_embeddings: bool) -> Any:
        """Vectors of what may be found."""
        ...


class EmbeddingIndex:
    """An `Index` that compares meanings: the cosine of a model's vectors.

    Args:
        tools: The tools; all are encoded at once.
        encoder: The model.
    """

    def __init__(self, tools: Sequence[Tool], encoder: Encoder) -> None:
        self.tools = tuple(tools)
        self._encoder = encoder
        self._vectors = encoder.encode_document([_text(tool) for tool in tools], normalize_embeddings=True)

    def ranked(self, query: str) -> list[Tool]:
        """As of `Index`."""
        if not self.tools:
            return []
        (vector,) = self._encoder.encode_query([query], normalize_embeddings=True)
        return _by_score(self.tools, (self._vectors @ vector).tolist())


def _by_score(tools: Sequence[Tool], scores: Sequence[float]) -> list[Tool]:
    order = sorted(range(len(tools)), key=lambda number: -scores[number])
    return [tools[number] for number in order]


def open_retriever(name: str) -> Callable[[Sequence[Tool]], Index]:
    """What makes an index of tools: ``bm25``, or the name of a sentence-transformers model (a folder or a hub id).

    Raises:
        UserError: The package for models is missing, or there is no such model.
    """
    if name == BM25:
        return ToolIndex
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(
            f"--retriever {name}: a model needs the package sentence-transformers: pip install 'alpha-umi[retrieval]', "
            f"or leave the option out for {BM25}"
        ) from error
    try:
        encoder: Encoder = SentenceTransformer(name)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--retriever {name}: no sentence-transformers model can be loaded: {first}") from None
    return lambda tools: EmbeddingIndex(tools, encoder)


def retrieve(
    tools: Sequence[Tool], query: str, k: int, index: Callable[[Sequence[Tool]], Index] = ToolIndex
) -> tuple[Tool, ...]:
    """The ``k`` tools that are most relevant to a query, the most relevant first."""
    return tuple(index(tools).ranked(query)[:k])


def recall_at(k: int, found: Sequence[str], relevant: Collection[str]) -> float:
    """Share of the relevant names that are among the first ``k`` found; 1 if nothing is relevant."""
    wanted = set(relevant)
    return len(wanted.intersection(found[:k])) / len(wanted) if wanted else 1.0


def words(text: str) -> list[str]:
    """Lower-case words without a plural s and without stop words; ``getHotel_prices2`` is four of them."""
    found = (word.lower() for word in _WORD.findall(_HUMP.sub(" ", text)))
    return [_singular(word) for word in found if word not in STOP_WORDS]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _text(tool: Tool) -> str:
    properties = tool.parameters.get("properties")
    parts = [tool.name, tool.description]
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        parts += [name, str(schema.get("description") or "") if isinstance(schema, dict) else ""]
    return " ".join(parts)
