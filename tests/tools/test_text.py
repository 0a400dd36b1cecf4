"""What a tool says is data: bounded, without control characters and without secrets."""

from __future__ import annotations

import json
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.tools.text import MASK, masked, observable, shortened, stripped


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("plain\ttext\nand a line", "plain\ttext\nand a line"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07end", "red end"),
        ("a\x00b\x08c\x7fd\x9be", "abcde"),
        ("abc\u202edcba\u2066x", "abcdcbax"),
        ("hi\U000e0041\U000e0042", "hi"),
        ("half \ud83d pair", "half ? pair"),
        ("Zürich 東京 🎉", "Zürich 東京 🎉"),
    ],
)
def test_control_characters_are_taken_out_and_text_stays(said: str, read: str) -> None:
    assert stripped(said) == read


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_whatever_a_tool_says_becomes_text_without_control_characters(said: str) -> None:
    read = observable(said, 1000)
    read.encode()
    assert all(unicodedata.category(character) != "Cc" or character in "\t\n" for character in read)
    assert stripped(read) == read


@given(st.text(max_size=300), st.integers(0, 200))
def test_a_text_over_the_limit_keeps_its_head_and_its_tail(text: str, limit: int) -> None:
    cut = shortened(text, limit)
    if len(text.encode()) <= limit:
        assert cut == text
    else:
        head, _, tail = cut.partition(f"\n[... {len(text.encode()) - limit} bytes cut ...]\n")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert limit - 6 <= len((head + tail).encode()) <= limit


@pytest.mark.parametrize("name", ["API_KEY", "my_token", "ClientSecret", "DB_PASSWORD", "KEYCHAIN"])
def test_values_of_variables_named_like_secrets_are_masked(name: str) -> None:
    assert masked("it is canary-1234.", {name: " canary-1234\n"}) == f"it is {MASK}."


def test_other_values_and_short_ones_are_not_masked() -> None:
    environment = {"HOME": "/home/somebody", "SHORT_KEY": "abcde", "TOKENIZERS_PARALLELISM": "false"}
    assert masked("/home/somebody abcde false", environment) == "/home/somebody abcde false"


def test_a_secret_is_masked_in_every_way_of_writing_it() -> None:
    secret = 'ca"na\\ry é/+&'
    written = [secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), quote(secret), quote(secret, "")]
    text = masked(" | ".join(written), {"SOME_SECRET": secret})
    assert "na" not in text
    assert text.count(MASK) == len(written)


def test_a_secret_within_another_leaves_no_rest() -> None:
    assert masked("canary-long canary", {"A_KEY": "canary", "B_KEY": "canary-long"}) == f"{MASK} {MASK}"


def test_no_part_of_a_secret_survives_stripping_or_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canarycanary")
    assert observable("x" * 10 + "canary\x00canary" + "x" * 10, 20) == "xxxxxxxxxx\n[... 8 bytes cut ...]\nxxxxxxxxxx"
