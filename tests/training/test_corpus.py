"""The procedural corpus: nothing of ToolWorld is in it, and it is the same in every process."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys

import pytest
from transformers import PreTrainedTokenizerBase

from alpha_umi.toolworld import SPLITS, load_catalogue, make_tasks
from alpha_umi.toolworld.values import Vocabulary, words
from alpha_umi.training.corpus import KINDS, Document, document, documents, tokenizer_text
from alpha_umi.training.functions import service
from alpha_umi.training.nano import encode_document, packed_row
from alpha_umi.training.words import ADJECTIVES, LINKING, NOUNS, THINGS, VERBS, identifier, invented, proper_name
from alpha_umi.transcript import IGNORED, NANO_END, ROLES, nano_token

NAME = re.compile(r"\w+")
WORD = re.compile(r"[A-Za-z]+")
END = "." + NANO_END
DOCUMENTS = 3000
INSTRUCTIONS = 150


def text_of(doc: Document) -> str:
    return "".join(part.text for part in doc)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text_of(document(0, index)) for index in range(DOCUMENTS)]


def test_no_tool_of_toolworld_is_named(texts: list[str]):
    names = set(load_catalogue().apis)
    assert len(names) >= 200
    assert not names & {name for text in texts for name in NAME.findall(text)}


def test_no_collection_of_toolworld_is_named(texts: list[str]):
    """A name of theirs that is an ordinary English word may be used as such; in front of a function it may not."""
    collections = set(load_catalogue().collections)
    found = {name for text in texts for name in NAME.findall(text)}
    heads = {name.split("_")[0] for name in found if "_" in name}
    assert not collections & found
    assert not collections & heads


@pytest.mark.parametrize("vocabulary", ["train", "held-out"])
def test_no_invented_word_of_toolworld_is_used(texts: list[str], vocabulary: Vocabulary):
    """What was invented for the training data and happens to be English ("paper") is excused; nothing held out is."""
    theirs = {word.lower() for word in words(vocabulary)}
    if vocabulary == "train":
        theirs -= {*NOUNS, *VERBS, *ADJECTIVES, *LINKING, *THINGS}
    assert len(theirs) > 1000
    found = theirs & {word.lower() for text in texts for word in WORD.findall(text)}
    assert not found


def grams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """Its runs of n words."""
    tokens = re.findall(r"[a-z]+", text.lower())
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


@pytest.fixture(scope="module")
def runs(texts: list[str]) -> set[tuple[str, ...]]:
    """All runs of five words in the corpus."""
    return set().union(*map(grams, texts))


@pytest.mark.parametrize("split", ["train", *SPLITS])
def test_no_five_words_in_a_row_of_an_instruction_occur(runs: set[tuple[str, ...]], split: str):
    theirs = set().union(*(grams(task.instruction) for task in make_tasks(split, INSTRUCTIONS, seed=0)))
    assert len(theirs) > 500
    shared = theirs & runs
    assert not shared


def test_a_document_depends_on_seed_and_number_alone():
    forward = [document(4, index) for index in range(40)]
    assert [document(4, index) for index in reversed(range(40))] == forward[::-1]
    assert list(itertools.islice(documents(4, start=10), 30)) == forward[10:]
    assert forward != [document(5, index) for index in range(40)]


def test_another_process_makes_the_same_documents():
    program = "from alpha_umi.training.corpus import document\nfor i in range(60): print(document(9, i))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8")
    assert out.stdout.splitlines() == [str(document(9, index)) for index in range(60)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_something_to_learn_that_follows_from_what_is_given(kind: str):
    make = KINDS[kind][0]
    made = [make(random.Random(seed)) for seed in range(40)]
    learning = [doc for doc in made if any(part.learn for part in doc)]
    assert len(learning) > 30
    assert all(not doc[0].learn for doc in learning), "a document can't begin with what follows from it"
    assert all(part.text for doc in made for part in doc)


def test_the_shares_of_the_kinds_add_up():
    assert sum(share for _, share in KINDS.values()) == pytest.approx(1.0)


def test_calls_are_json_and_their_names_and_values_stand_before_them():
    calls = 0
    for seed in range(200):
        before = ""
        for part in KINDS["requests"][0](random.Random(seed)):
            called = part.learn and part.text.startswith('{"name"')
            for line in part.text.removesuffix(NANO_END).splitlines() if called else ():
                call = json.loads(line)
                assert call["name"] in before
                for value in call["arguments"].values():
                    assert isinstance(value, (bool, list)) or str(value) in before
                calls += 1
            before += part.text
    assert calls > 300


def test_a_request_is_a_chat_and_what_is_learnt_of_it_an_assistant_says():
    """The roles' headers are left to fine-tuning; the program opens every segment."""
    for seed in range(100):
        doc = KINDS["requests"][0](random.Random(seed))
        assert doc[0].text == nano_token("system")
        for header, said in itertools.pairwise(doc):
            if said.learn:
                assert header.text == nano_token("assistant")
                assert said.text.endswith(NANO_END)
        assert not {part.text for part in doc} & {nano_token(role) for role in ROLES}


def test_a_missing_argument_is_asked_for_and_a_given_one_is_not():
    """What the plan marks as unknown is what the question names, and nothing but what the request leaves out."""
    asked = 0
    for seed in range(300):
        learned = [part.text for part in KINDS["requests"][0](random.Random(seed)) if part.learn]
        for plan, question in itertools.pairwise(learned):
            unknown = [piece.split()[-2] for piece in plan.rstrip(END).split(", ") if piece.endswith(" ?")]
            asks = question.startswith("Please add the ")
            assert asks == bool(unknown)
            if asks:
                names = " and ".join(name.replace("_", " ") for name in unknown)
                assert question == f"Please add the {names}.{NANO_END}"
                asked += 1
    assert asked > 100


def test_tools_are_often_made_of_words_that_are_on_no_list():
    """What is read only off a list of known words isn't read: a tool of unseen words would be lost on such a reader."""
    rng = random.Random(0)
    known = {*NOUNS, *VERBS, *ADJECTIVES, *THINGS}
    parts = [part for _ in range(400) for one in service(rng, 3) for p in one.params for part in p.name.split("_")]
    strange = sum(part not in known | {"id", "date", "time"} for part in parts) / len(parts)
    assert 0.25 < strange < 0.6


def test_functions_of_a_service_look_alike():
    """They share the beginning of their names and some parameters, so that only reading tells them apart."""
    rng = random.Random(1)
    made = [service(rng, 3) for _ in range(100)]
    assert all(len({one.name.split("_")[0] for one in functions}) == 1 for functions in made)
    assert all(len({one.name for one in functions}) == 3 for functions in made)
    assert sum(bool({p.name for p in a.params} & {p.name for p in b.params}) for a, b, _ in made) > 40


def test_invented_words_are_many_and_none_is_toolworlds():
    rng = random.Random(0)
    made = [invented(rng) for _ in range(5000)]
    assert len(set(made)) > 3500
    theirs = {word.lower() for pool in ("train", "held-out") for word in words(pool)}  # pyright: ignore[reportArgumentType]
    assert not theirs & set(made)
    assert all(3 <= len(word) <= 10 and word.isalpha() and word.islower() for word in made)
    assert all(name == name.title() for name in (proper_name(rng) for _ in range(200)))
    assert all(re.fullmatch(r"[A-Z]{1,3}-\d{1,6}", identifier(rng)) for _ in range(200))


def test_the_text_for_the_tokenizer_depends_on_seed_and_number():
    assert tokenizer_text(1, 2) == tokenizer_text(1, 2) != tokenizer_text(1, 3)


# ---- as rows


def test_only_what_can_be_known_is_in_the_loss(tokenizer: PreTrainedTokenizerBase):
    end = tokenizer.convert_tokens_to_ids(NANO_END)
    doc = next(doc for doc in documents(0) if sum(part.learn for part in doc) > 1)
    ids, labels = encode_document(tokenizer, doc, end)  # pyright: ignore[reportArgumentType]
    assert ids[-1] == labels[-1] == end
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    learned = tokenizer.decode([label for label in labels[:-1] if label != IGNORED])
    assert learned == "".join(part.text for part in doc if part.learn)


def test_rows_are_full_and_repeat_with_their_number(tokenizer: PreTrainedTokenizerBase):
    one = packed_row(tokenizer, 0, 5, 320)  # pyright: ignore[reportArgumentType]
    assert len(one.ids) == len(one.labels) == len(one.group) == 320
    assert one == packed_row(tokenizer, 0, 5, 320)  # pyright: ignore[reportArgumentType]
    assert one != packed_row(tokenizer, 0, 6, 320)  # pyright: ignore[reportArgumentType]
