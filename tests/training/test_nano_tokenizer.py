"""The tokenizer that ships with the package: lossless, and the same tokens for a value wherever it stands."""

from __future__ import annotations

import json
import random
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from alpha_umi.run_directory import load_tokenizer, shipped_base
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.toolworld.values import words
from alpha_umi.training.nano import new_tokenizer
from alpha_umi.training.recipe import NanoShape, PretrainRecipe
from alpha_umi.training.tokenizer import PAD
from alpha_umi.training.words import identifier, proper_name
from alpha_umi.transcript import KINDS, NANO_END, Renderer, nano_token


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def contains(whole: list[int], part: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def test_its_files_are_in_the_package():
    base = resources.files("alpha_umi") / "training" / "base"
    assert (base / "tokenizer.json").is_file()
    assert (base / "tokenizer_config.json").is_file()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str):
    renderer = Renderer(load_once())
    assert renderer.decode(renderer.encode(text)) == text


_LOADED: list[PreTrainedTokenizerBase] = []


def load_once() -> PreTrainedTokenizerBase:
    """The tokenizer without a fixture, which hypothesis would have to reset."""
    if not _LOADED:
        _LOADED.append(load_tokenizer(str(shipped_base())))
    return _LOADED[0]


@given(st.text(st.sampled_from('<|>{}":, \n_-.0aZé東🙂\t')))
def test_text_of_marks_and_spaces_comes_back(text: str):
    renderer = Renderer(load_once())
    assert renderer.decode(renderer.encode(text)) == text


def test_every_header_is_one_token(tokenizer: PreTrainedTokenizerBase):
    for token in (*map(nano_token, KINDS), NANO_END, PAD):
        assert len(ids(tokenizer, token)) == 1
        assert token in tokenizer.all_special_tokens or tokenizer.added_tokens_decoder[ids(tokenizer, token)[0]].special
    renderer = Renderer(tokenizer)
    assert renderer.markers.style == "nano"
    assert all(len(renderer.header(kind)) == 1 for kind in KINDS)
    assert tokenizer.eos_token == NANO_END
    assert tokenizer.pad_token_id == 0


def test_it_is_as_large_as_its_recipe_says(tokenizer: PreTrainedTokenizerBase):
    assert len(tokenizer) == 4096


@pytest.mark.parametrize("text", ["1234567890", "2026-03-14", "QR-4821", "x12y", "3.5", "00"])
def test_every_digit_is_a_token(tokenizer: PreTrainedTokenizerBase, text: str):
    tokens = tokenizer.convert_ids_to_tokens(ids(tokenizer, text))
    assert [token for token in tokens if any(c.isdigit() for c in token)] == [c for c in text if c.isdigit()]


PLACES = [
    "{}", "The keeper of {} is known.", "For {}.", '{{"name": "{}"}}', '{{"a": 1, "b": "{}"}}', '["{}"]', "({})",
    "hotel {}\n", "{}: yes", "- {}\n", "Is it {}?", '{{"results": ["Xo", "{}"]}}', "with {}; then", "is {}.",
]  # fmt: skip


def test_a_name_has_the_same_tokens_wherever_it_stands(tokenizer: PreTrainedTokenizerBase):
    rng = random.Random(0)
    names = [*(proper_name(rng) for _ in range(60)), *words("held-out")[:60], *(identifier(rng) for _ in range(60))]
    for name in names:
        alone = ids(tokenizer, name)
        for place in PLACES:
            assert contains(ids(tokenizer, place.format(name)), alone), (name, place)


def test_a_functions_name_is_the_same_in_schema_rationale_and_call(tokenizer: PreTrainedTokenizerBase):
    for task in make_tasks("I1-Cat", 20):
        for tool in task.tools:
            alone = ids(tokenizer, f'"{tool.name}"')[1:-1]
            schema = ids(tokenizer, tool.schema)
            call = ids(tokenizer, json.dumps({"name": tool.name, "arguments": {}}))
            assert contains(schema, alone[1:])
            assert contains(call, alone[1:])


@pytest.mark.parametrize("split", ["train", "I1-Inst", "I3-Inst", "I2-Cat"])
def test_nano_transcripts_stay_within_1024_tokens(renderer: Renderer, split: str):
    lengths = [len(renderer.render(solve(task)).ids) for task in make_tasks(split, 100, seed=7)]
    assert max(lengths) <= 1024


def test_training_one_again_gives_the_same():
    recipe = PretrainRecipe(task="pretrain", out="", steps=1, shape=NanoShape(vocabulary=500), tokenizer_documents=100)
    one, other = new_tokenizer(recipe), new_tokenizer(recipe)
    assert one.get_vocab() == other.get_vocab()
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    assert len(one) == 500
