"""The tools an agent is shown are those that fit the instruction."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import UserError
from alpha_umi.tools.retrieve import (
    K1,
    B,
    Bm25,
    EmbeddingIndex,
    ToolIndex,
    open_retriever,
    recall_at,
    retrieve,
    words,
)
from alpha_umi.tools.toolbench import function_name, read_toolbench
from alpha_umi.trajectory import Tool


def tool(name: str, description: str = "", **parameters: str) -> Tool:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    return Tool.of(name, description, {"type": "object", "properties": properties})


TOOLS = (
    tool("getWeather", "Tells the weather of a city.", city="Name of the city"),
    tool("hotel_price", "Price of a night in a hotel.", hotel="Its name"),
    tool("book_hotel", "Books a room in a hotel for some nights.", hotel="Its name", nights="How many"),
    tool("send_mail", "Sends a mail.", to="Address"),
)


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("What will the weather be like in Paris?", ["getWeather"]),
        ("What is the PRICE of the hotels?", ["hotel_price", "book_hotel"]),
        ("Book me a room for two nights", ["book_hotel", "hotel_price"]),
        ("my mail address", ["send_mail"]),
    ],
)
def test_the_most_relevant_tools_come_first(query: str, best: list[str]) -> None:
    assert [found.name for found in retrieve(TOOLS, query, len(best))] == best


def test_more_than_there_are_is_all_of_them_and_no_match_keeps_their_order() -> None:
    assert retrieve(TOOLS, "xyz", 99) == TOOLS
    assert retrieve((), "weather", 3) == ()


def test_scores_are_those_of_the_formula() -> None:
    index = Bm25([["a", "b", "a"], ["b"], ["c"]])
    rare, common = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    norm = K1 * (1 - B + B * 3 / (5 / 3))
    first = rare * 2 * (K1 + 1) / (2 + norm) + common * (K1 + 1) / (1 + norm)
    scores = index.scores(["a", "b", "z"])
    assert scores[0] == pytest.approx(first)
    assert scores[1] == pytest.approx(common * (K1 + 1) / (1 + K1 * (1 - B + B / (5 / 3))))
    assert scores[2] == 0


def test_names_are_taken_apart_in_every_script() -> None:
    assert words("getHotel_price2 of the HTTPServer prices Straße 天气_查询 class") == [
        "get", "hotel", "price", "2", "http", "server", "price", "straße", "天气", "查询", "class",
    ]  # fmt: skip


@given(st.text())
def test_no_query_breaks_the_index(query: str) -> None:
    assert {found.name for found in ToolIndex(TOOLS).ranked(query)} == {each.name for each in TOOLS}


def test_schemas_of_any_shape_can_be_indexed() -> None:
    odd = (
        Tool('{"name": "f", "parameters": {"properties": [1]}}'),
        Tool('{"name": "g", "parameters": {"properties": {"x": true}}}'),
    )
    assert retrieve(odd, "x", 1)[0].name == "g"


class Senses:
    """An encoder of two dimensions, whether a text is of weather and whether of money, in words of its own."""

    WORDS = (("weather", "rain", "umbrella"), ("price", "cheap", "cost"))

    def _vectors(self, texts: list[str]) -> np.ndarray:
        found = [[1e-3 + sum(word in text.lower() for word in sense) for sense in self.WORDS] for text in texts]
        return np.array(found) / np.linalg.norm(found, axis=1, keepdims=True)

    def encode_query(self, sentences: list[str], *, normalize_embeddings: bool) -> np.ndarray:
        assert normalize_embeddings
        return self._vectors(sentences)

    def encode_document(self, sentences: list[str], *, normalize_embeddings: bool) -> np.ndarray:
        assert normalize_embeddings
        return self._vectors(sentences)


@pytest.mark.parametrize(("query", "best"), [("Do I need an umbrella?", "getWeather"), ("Is it cheap?", "hotel_price")])
def test_a_model_finds_tools_by_their_meaning(query: str, best: str) -> None:
    index = EmbeddingIndex(TOOLS, Senses())
    assert index.ranked(query)[0].name == best
    assert sorted(found.name for found in index.ranked(query)) == sorted(each.name for each in TOOLS)
    assert retrieve(TOOLS, query, 1, lambda tools: EmbeddingIndex(tools, Senses()))[0].name == best


def test_an_index_of_no_tools_finds_none() -> None:
    class Never(Senses):
        def _vectors(self, texts: list[str]) -> np.ndarray:
            return np.zeros((0, 0))

    assert EmbeddingIndex((), Never()).ranked("x") == []


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Any]], None]:
    """Puts a package in the place of sentence-transformers that loads a model as it is told."""

    def put(load: Callable[[str], Any]) -> None:
        module = ModuleType("sentence_transformers")
        module.SentenceTransformer = load  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, "sentence_transformers", module)

    return put


def test_a_model_is_loaded_by_its_name(package: Callable[[Callable[[str], Any]], None]) -> None:
    named: list[str] = []
    package(lambda name: named.append(name) or Senses())
    assert open_retriever("some/model")(TOOLS).ranked("umbrella")[0].name == "getWeather"
    assert named == ["some/model"]
    assert isinstance(open_retriever("bm25")(TOOLS), ToolIndex)


def test_a_model_that_is_not_there_is_one_sentence(package: Callable[[Callable[[str], Any]], None]) -> None:
    def fails(name: str) -> Any:
        raise OSError("it is neither a folder\nnor on the hub")

    package(fails)
    with pytest.raises(UserError, match=r"--retriever no/model: .*neither a folder$"):
        open_retriever("no/model")


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install 'alpha-umi\[retrieval\]', or leave the option out for bm25"):
        open_retriever("some/model")


@pytest.mark.parametrize(
    ("k", "found", "relevant", "recall"),
    [
        (2, "abc", "a", 1),
        (2, "abc", "c", 0),
        (2, "abc", "ac", 0.5),
        (3, "abc", "ac", 1),
        (1, "", "a", 0),
        (1, "a", "", 1),
    ],
)
def test_recall_is_the_share_of_relevant_tools_among_the_first(
    k: int, found: str, relevant: str, recall: float
) -> None:
    assert recall_at(k, found, relevant) == recall


def test_recall_on_toolbenchs_instructions(real_data: Path) -> None:
    """The open-domain setting: all 812 APIs of the split are candidates for each of its instructions."""
    path = real_data / "stabletoolbench/solvable_queries/test_instruction/G1_instruction.json"
    index = ToolIndex(read_toolbench(path))
    assert len(index.tools) == 812
    recalls = []
    for record in json.loads(path.read_text("utf-8"))[::4]:
        relevant = {function_name(*pair) for pair in record["relevant APIs"]}
        recalls.append(recall_at(5, [found.name for found in index.ranked(record["query"])], relevant))
    assert len(recalls) == 41
    assert sum(recalls) / len(recalls) > 0.7
