"""The record: what goes in comes out byte for byte, and bad input is one clear sentence."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_umi.errors import DataError, UserError
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    atomic_write,
    read_jsonl,
    write_json,
    write_jsonl,
)

ODD_SCHEMAS = [
    '{"name":"a","parameters":{"type":"object"}}',
    '{ "name" :  "a" ,"description":"two  spaces" }',
    '{"parameters": {}, "description": "keys in another order", "name": "a"}',
    '{"name": "a", "parameters": {"properties": {"x": {"minimum": 1.0, "maximum": 1.00, "multipleOf": 1e0}}}}',
    '{"name": "a", "parameters": {"properties": {"x": {"default": 12345678901234567890123}}}}',
    '{"name": "first", "name": "a", "description": "x", "description": "doubled keys"}',
    r'{"name": "a", "description": "\u00e9\u4e2d \ud83d\ude00 \/ \u0041"}',
    '{"name": "a", "description": "é中😀\u2028\u2029\x85"}',
    r'{"name": "a", "description": "half a pair: \ud83d"}',
    r'{"name": "a", "description": "}], \"tools\": [{\"function\": {"}',
    '{"name": "a", "strict": true, "x-vendor": [null, -0, 1E+2]}',
]


def line_with(*schemas: str) -> str:
    tools = ", ".join(f'{{"type": "function", "function": {schema}}}' for schema in schemas)
    return f'{{"tools": [{tools}], "messages": [{{"role": "user", "content": "hi"}}]}}'


# ---- byte for byte ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ODD_SCHEMAS)
def test_a_tool_schema_survives_a_round_trip_byte_for_byte(schema: str) -> None:
    line = line_with(schema)
    trajectory = Trajectory.from_json(line)
    assert trajectory.tools[0].schema == schema
    assert trajectory.to_json() == line


def test_schemas_survive_a_file_whatever_surrounds_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    spread = (
        '{\t"messages" : [ ] , "tools" : [ '
        + " , ".join(f'{{ "function" : {schema} , "type" : "function" }}' for schema in ODD_SCHEMAS)
        + " ] }\r\n"
    )
    path.write_bytes(spread.encode())
    (first,) = read_jsonl(path)
    assert [tool.schema for tool in first.tools] == ODD_SCHEMAS
    write_jsonl(path, [first])
    (second,) = read_jsonl(path)
    assert second == first


def test_where_a_key_of_the_line_is_doubled_the_last_one_counts_for_text_and_value_alike() -> None:
    line = '{"tools": [], "messages": [], "tools": [{"function": {"name": "x"}, "function": {"name":"y"}}]}'
    (tool,) = Trajectory.from_json(line).tools
    assert (tool.schema, tool.name) == ('{"name":"y"}', "y")


@pytest.mark.parametrize(
    "arguments", ["{}", '{"a":1.00}', '{ "a" : 1 }\n', '{"a": 1, "a": 2}', r'{"a": "\u0041"}', "", "not JSON", "[1]"]
)
def test_a_calls_arguments_survive_a_round_trip_byte_for_byte(arguments: str) -> None:
    call = ToolCall("c1", "a", arguments)
    trajectory = Trajectory((), (AssistantMessage(tool_calls=(call,)), ToolMessage("c1", "ok")))
    assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_a_schema_over_several_lines_becomes_one_line() -> None:
    tool = Tool('{\n  "name": "a"\n}')
    assert "\n" not in tool.schema
    assert tool.name == "a"


def test_half_a_surrogate_pair_is_written_as_an_escape_and_read_back(tmp_path: Path) -> None:
    half = "\ud83d"
    trajectory = Trajectory((Tool.of("a", half, {}),), (UserMessage(half),), extra={"x": half})
    write_jsonl(tmp_path / "a.jsonl", [trajectory])
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [trajectory]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
SCALAR = st.none() | st.booleans() | st.integers() | TEXT
EXTRA = st.dictionaries(TEXT, st.recursive(SCALAR, lambda one: st.lists(one, max_size=2), max_leaves=4), max_size=2)
TOOLS = st.builds(
    Tool.of,
    TEXT.filter(bool),
    TEXT,
    st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(TEXT, st.just({"type": "string"}))}
    ),
    EXTRA,
)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    messages = draw(st.lists(st.builds(SystemMessage, TEXT, EXTRA), max_size=1))
    messages += draw(st.lists(st.builds(UserMessage, TEXT, EXTRA), max_size=2))
    rationales = st.none() | TEXT
    for step in range(draw(st.integers(0, 3))):
        ids = [f"c{step}.{number}" for number in range(draw(st.integers(1, 3)))]
        calls = tuple(ToolCall(name, draw(TEXT), draw(TEXT), draw(st.booleans())) for name in ids)
        messages.append(AssistantMessage(draw(rationales), calls, extra=draw(EXTRA)))
        messages += [ToolMessage(name, draw(TEXT), draw(EXTRA)) for name in ids]
    last = draw(st.sampled_from(["content", "refusal", "nothing"]))
    words = {} if last == "nothing" else {last: draw(TEXT)}
    messages.append(AssistantMessage(draw(rationales), extra=draw(EXTRA), **words))
    return Trajectory(tuple(draw(st.lists(TOOLS, max_size=3))), tuple(messages), draw(st.none() | TEXT), draw(EXTRA))


@given(trajectories())
def test_every_trajectory_is_one_line_that_reads_back_as_itself(trajectory: Trajectory) -> None:
    line = trajectory.to_json()
    assert "\n" not in line
    again = Trajectory.from_json(line)
    assert again == trajectory
    assert again.to_json() == line


@given(st.lists(trajectories(), max_size=2))
@settings(max_examples=20)
def test_every_file_reads_back_as_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[Trajectory]
) -> None:
    path = tmp_path_factory.mktemp("round") / "a.jsonl"
    assert write_jsonl(path, written) == len(written)
    assert list(read_jsonl(path)) == written


# ---- what a turn means --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "decision"),
    [
        (AssistantMessage("why", (ToolCall("1", "a", "{}"),)), Decision.CALL),
        (AssistantMessage("why", content=""), Decision.FINISH),
        (AssistantMessage("why", refusal="sorry"), Decision.GIVE_UP),
        (AssistantMessage("why"), None),
    ],
)
def test_the_decision_is_read_off_what_the_turn_holds(message: AssistantMessage, decision: Decision | None) -> None:
    assert message.decision is decision


def test_a_turn_with_an_answer_and_a_call_is_refused() -> None:
    with pytest.raises(ValueError, match="not several"):
        AssistantMessage(tool_calls=(ToolCall("1", "a", "{}"),), content="done")


@pytest.mark.parametrize(
    "messages",
    [
        (UserMessage("hi"), ToolMessage("1", "nobody asked")),
        (AssistantMessage(tool_calls=(ToolCall("1", "a", "{}"),)), ToolMessage("1", "x"), ToolMessage("1", "again")),
        (AssistantMessage(tool_calls=(ToolCall("1", "a", "{}"),)), AssistantMessage("then"), ToolMessage("1", "late")),
    ],
)
def test_an_observation_answers_a_call_of_the_turn_before(messages: tuple) -> None:
    with pytest.raises(ValueError, match="which no turn made"):
        Trajectory((), messages)


def test_two_calls_of_a_turn_with_one_id_are_refused() -> None:
    call = ToolCall("1", "a", "{}")
    with pytest.raises(ValueError, match="one id"):
        Trajectory((), (AssistantMessage(tool_calls=(call, call)),))


@pytest.mark.parametrize("arguments", ["", "[]", "1", "{", "[" * 100_000, '{"n": ' + "1" * 5_000 + "}"])
def test_arguments_that_are_no_object_parse_to_none_and_never_raise(arguments: str) -> None:
    assert ToolCall("1", "a", arguments).parsed() is None


def test_a_malformed_call_has_no_parsed_arguments_even_if_its_text_is_json() -> None:
    assert ToolCall("1", "a", "{}", malformed=True).parsed() is None


@pytest.mark.parametrize(
    "schema",
    ["", "[]", "{}", '{"name": ""}', '{"name": 1}', '{"name": "a", "parameters": []}', '{"name": "a",}', "[" * 100_000],
    ids=lambda schema: schema[:30] or "empty",
)
def test_a_broken_schema_is_a_value_error(schema: str) -> None:
    with pytest.raises(ValueError, match="tool"):
        Tool(schema)


# ---- bad lines ----------------------------------------------------------------------------------------------------

GOOD = '{"messages": [{"role": "user", "content": "hi"}]}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON: .* at column"),
        ("[1]", "Input should be an object"),
        ('"text"', "Input should be an object"),
        ("{}", "messages: Field required"),
        ('{"messages": [], "turns": []}', "turns: Extra inputs are not permitted"),
        ('{"messages": [{"role": "planner", "content": ""}]}', r"messages\.0\.role: Input should be 'system'"),
        ('{"messages": [{"role": "user"}]}', "a user message needs 'content'"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "'tool_call_id' belongs to every tool message"),
        ('{"messages": [{"role": "user", "content": "x", "refusal": "y"}]}', "a user message has 'content' only"),
        ('{"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}', "message 0 answers the call '1'"),
        ('{"messages": [], "tools": [{"function": {"name": ""}}]}', r"tools\.0: a tool needs .* 'name'"),
        ('{"messages": [], "tools": [{"type": "function"}]}', r"tools\.0\.function: Field required"),
        (
            '{"messages": [{"role": "assistant", "tool_calls": [{"id":"","function": {"name":"","arguments":1}}]}]}',
            r"messages\.0\.tool_calls\.0\.function\.arguments: Input should be a valid string",
        ),
        ('{"messages": [], "extra": {"x": ' + "[" * 100_000 + "]" * 100_000 + "}}", "nested too deeply"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_line_names_file_line_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    reader = read_jsonl(path)
    assert next(reader).instruction == "hi"
    with pytest.raises(DataError, match=reason) as caught:
        next(reader)
    assert (caught.value.path, caught.value.line) == (path, 3)
    assert str(caught.value).startswith(f"{path}, line 3: ")


def test_bytes_that_are_not_utf8_are_reported_on_their_own_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(f"{GOOD}\n{GOOD}\n".encode() + GOOD.replace("hi", "é").encode("latin-1"))
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        list(read_jsonl(path))


def test_a_missing_file_and_a_directory_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="can't be read"):
        list(read_jsonl(tmp_path))


KEYS = st.sampled_from(["tools", "messages", "role", "content", "function", "name", "extra", "id", "tool_calls"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


@given(JSON)
def test_any_json_value_is_a_trajectory_or_a_value_error(value: object) -> None:
    try:
        Trajectory.from_json(json.dumps(value))
    except ValueError as error:
        assert not re.search(r"_Record|_Wire", str(error))


# ---- the atomic writer --------------------------------------------------------------------------------------------


def failing_after(count: int) -> Iterator[Trajectory]:
    for number in range(count):
        yield Trajectory((), (UserMessage(str(number)),))
    raise DataError("source.json", "it broke")


def test_an_error_half_way_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [Trajectory((), (UserMessage("old"),))])
    before = path.read_bytes()
    with pytest.raises(DataError, match="it broke"):
        write_jsonl(path, failing_after(1000))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_half_way_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_jsonl(tmp_path / "a.jsonl", failing_after(1000))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.txt") as file:
        file.write("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_missing_directories_are_made_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "a.bin"
    with atomic_write(path, "wb") as file:
        file.write(b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n"


def test_a_place_that_cannot_be_written_is_a_user_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write .*file/a\.jsonl"):
        write_jsonl(tmp_path / "file" / "a.jsonl", [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"can't write .*folder"):
        write_jsonl(tmp_path / "folder", [])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_a_user_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    target = tmp_path / "never.txt"
    with pytest.raises(UserError, match="No space left"), atomic_write(target), open("/dev/full", "w") as full:
        full.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_json_document_is_readable_and_ends_in_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "α"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "α"\n}\n'


@pytest.mark.parametrize(
    "parameters",
    ['{"type": "thing"}', '{"type": "object", "properties": ["a"]}', '{"type": "object", "required": "a"}'],
)
def test_a_file_whose_tools_have_a_broken_schema_is_refused_by_line(tmp_path: Path, parameters: str):
    tool = '{"type": "function", "function": {"name": "f", "parameters": %s}}'
    good = '{"tools": [%s], "messages": []}\n' % (tool % '{"type": "object"}')
    bad = '{"tools": [%s], "messages": []}\n' % (tool % parameters)
    path = tmp_path / "data.jsonl"
    path.write_text(good + bad)
    with pytest.raises(DataError, match=r"line 2: tools\.0 \(f\): 'parameters.*no JSON Schema"):
        list(read_jsonl(path))
