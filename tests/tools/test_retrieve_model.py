"""A real sentence-transformers model, tiny and made on the spot, finds tools as `--retriever FOLDER`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer
from typer.testing import CliRunner

pytest.importorskip("sentence_transformers", reason="the extra `retrieval` is not installed")

from alpha_umi.cli import app
from alpha_umi.errors import UserError
from alpha_umi.tools.retrieve import open_retriever, retrieve
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, Trajectory, UserMessage, write_jsonl

WORDS = "what is the weather of a city price hotel how much book room train".split()  # noqa: SIM905
TOOLS = tuple(
    Tool.of(name, "", {"type": "object", "properties": {}}) for name in ("weather city", "price hotel", "book train")
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model of one layer that knows a few words; untrained, so only equal texts are surely near."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_tool_of_the_querys_own_words_comes_first_and_none_is_lost(model: str) -> None:
    index = open_retriever(model)
    for tool in TOOLS:
        assert index(TOOLS).ranked(tool.name)[0] == tool
    ranked = index(TOOLS).ranked("how much is the room")
    assert sorted(tool.name for tool in ranked) == sorted(tool.name for tool in TOOLS)
    assert retrieve(TOOLS, "price hotel", 1, index) == TOOLS[1:2]
    assert index(()).ranked("weather") == []


def test_recall_is_reported_of_a_model(model: str, tmp_path: Path) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "figures.json"
    asked = (UserMessage("price hotel"), AssistantMessage("Now.", (ToolCall("c", "price hotel", "{}"),)))
    write_jsonl(data, [Trajectory(TOOLS, asked)])
    arguments = ["eval", "retrieval", "--data", str(data), "--k", "1", "--retriever", model, "--json", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["recall"] == {"1": 1.0}


def test_a_folder_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sentence-transformers model can be loaded"):
        open_retriever(str(tmp_path))
