from __future__ import annotations

import re

import jsonschema
import pytest

from alpha_umi.toolworld import load_catalogue
from alpha_umi.toolworld.catalogue import READING, SLOT, WRITING, parse_catalogue, parse_field
from alpha_umi.toolworld.grammar import IN_SEQUENCE, SENTENCES
from alpha_umi.toolworld.values import words

APIS = list(load_catalogue().apis.values())
MAX_SCHEMA = 330


def test_the_catalogue_is_as_large_as_promised():
    catalogue = load_catalogue()
    assert len(catalogue.categories) >= 12
    assert len(catalogue.collections) >= 48
    assert all(len(category.collections) >= 4 for category in catalogue.categories)
    assert len([api for api in APIS if api.mirror_of is None]) >= 200


def test_two_categories_and_a_collection_of_every_other_one_are_held_out():
    catalogue = load_catalogue()
    assert sum(category.held_out for category in catalogue.categories) == 2
    for category in catalogue.categories:
        partitions = [collection.partition for collection in category.collections]
        expected = {"cat": 4} if category.held_out else {"train": 3, "tool": 1}
        assert {name: partitions.count(name) for name in set(partitions)} == expected


def test_every_operation_and_every_type_of_parameter_occurs():
    assert {api.op for api in APIS} == READING | WRITING
    schemas = [schema for api in APIS for schema in api.tool.parameters["properties"].values()]
    assert {schema["type"] for schema in schemas} == {"string", "integer", "number", "boolean", "array"}
    assert any("enum" in schema for schema in schemas)
    assert any(not param.required for api in APIS for param in api.params)


@pytest.mark.parametrize("collection", load_catalogue().collections.values(), ids=lambda item: item.name)
def test_a_tool_is_a_short_valid_json_schema(collection):
    for api in collection.apis:
        jsonschema.Draft202012Validator.check_schema(api.tool.parameters)
        assert len(api.tool.schema) <= MAX_SCHEMA
        assert re.fullmatch(r"[a-z]+_[a-z]+_[a-z]+", api.name)
        assert 1 <= len(api.params) <= 4
        assert all(len(param.field.words.split()) <= 4 for param in api.params)


@pytest.mark.parametrize("collection", load_catalogue().collections.values(), ids=lambda item: item.name)
def test_the_phrases_of_an_api_name_what_it_takes_and_gives(collection):
    for api in collection.apis:
        names = {param.name for param in api.params}
        required = {param.name for param in api.params if param.required}
        for phrase in api.ask:
            asked = {name for _, name in SLOT.findall(phrase)}
            assert required <= asked <= names
        answered = {name for _, name in SLOT.findall(api.answer)}
        assert answered <= names | {*api.gives, api.of, "results", "status" if api.op == "cancel" else ""}


def test_a_mirror_says_of_which_tool_of_its_partition_it_does_the_same():
    catalogue = load_catalogue()
    mirrors = [api for api in APIS if api.mirror_of]
    assert len(mirrors) >= 40
    for mirror in mirrors:
        original = catalogue.apis[mirror.mirror_of]
        assert original.name in mirror.tool.description
        assert mirror.tool.parameters == original.tool.parameters
        partitions = {catalogue.collections[api.collection].partition for api in (mirror, original)}
        assert len(partitions) == 1


def test_the_two_vocabularies_are_large_and_share_neither_words_nor_pairs_of_syllables():
    train, held_out = words("train"), words("held-out")
    assert len(set(train)) >= 3000 and len(set(held_out)) >= 1000
    assert not set(train) & set(held_out)
    assert all(re.fullmatch(r"[A-Z][a-z]{4,8}", word) for word in (*train, *held_out))


def test_no_invented_word_is_a_word_of_the_catalogue():
    invented = {word.lower() for word in (*words("train"), *words("held-out"))}
    schemas = " ".join(f"{api.tool.schema} {' '.join(api.ask)} {api.answer}" for api in APIS)
    assert not invented & set(re.findall(r"[a-z]+", schemas.lower()))


def test_there_are_six_paraphrases_of_every_operation():
    assert set(SENTENCES) == READING | WRITING
    assert all(len(set(templates)) >= 6 for templates in (*SENTENCES.values(), IN_SEQUENCE))


def test_a_new_row_is_a_new_api():
    row = {"op": "get", "name": "get_size", "about": "Get the size of a hat", "args": ["hat"], "gives": ["size"]}
    row |= {"ask": "the size of the hat {hat}", "answer": "The hat {hat} has size {size}."}
    collection = {
        "name": "hatbox",
        "record": "hat",
        "fields": ["hat = hat; hat name", "size = int 1..9"],
        "apis": [row],
    }
    catalogue = parse_catalogue([{"name": "hats", "title": "Hats", "collections": [collection]}])
    assert catalogue.apis["hatbox_get_size"].tool.parameters["required"] == ["hat"]


@pytest.mark.parametrize("change", [{"op": "steal"}, {"args": ["cap"]}, {"mirror": "other_get_size"}])
def test_a_row_that_refers_to_nothing_is_refused(change):
    row = {
        "op": "get",
        "name": "get_size",
        "about": "Get a size",
        "args": ["hat"],
        "gives": [],
        "ask": "",
        "answer": "",
    }
    collection = {"name": "hatbox", "record": "hat", "fields": ["hat = hat"], "apis": [row | change]}
    with pytest.raises(ValueError):
        parse_catalogue([{"name": "hats", "title": "Hats", "collections": [collection]}])


def test_a_number_without_a_range_is_refused():
    with pytest.raises(ValueError, match="range"):
        parse_field("size = int many")
