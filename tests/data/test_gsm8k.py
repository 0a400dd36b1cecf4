"""GSM8K: calculator annotations become calls, nothing of the solution is lost, no result is known before its call."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected
from alpha_umi.data.gsm8k import CALCULATOR, FORMAT
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage

ANSWER = """Natalia sold 48/2 = $<<48/2=24>>24 clips in May.
She sold 48+24 = <<48+24=72>>72 clips.
#### 72"""


def messages(answer: str) -> tuple[Any, ...]:
    return FORMAT.convert_record({"question": "How many?", "answer": answer}, "r").messages


@pytest.mark.parametrize(
    ("name", "records", "calls", "without"), [("train.jsonl", 7473, 23716, 95), ("test.jsonl", 1319, 4282, 18)]
)
def test_every_annotation_of_the_real_files_is_a_call(
    real_data: Path, name: str, records: int, calls: int, without: int
) -> None:
    found = list(FORMAT.convert(real_data / "gsm8k" / name))
    assert not any(isinstance(one, Rejected) for one in found)
    trajectories = [one for one in found if isinstance(one, Trajectory)]
    made = [sum(isinstance(m, ToolMessage) for m in one.messages) for one in trajectories]
    assert (len(made), sum(made), made.count(0)) == (records, calls, without)


def test_an_annotation_is_a_call_and_the_words_before_it_its_rationale() -> None:
    asked, first, result, second, _, last = messages(ANSWER)
    assert asked == UserMessage("How many?")
    assert first.reasoning_content == "Natalia sold 48/2"
    assert (first.tool_calls[0].name, first.tool_calls[0].arguments) == ("calculator", '{"expression": "48/2"}')
    assert result == ToolMessage("call_1", "24")
    assert second.reasoning_content == "24 clips in May.\nShe sold 48+24"
    assert (last.reasoning_content, last.content) == ("72 clips.", "The answer is 72.")


def test_a_solution_without_annotations_is_an_answer_with_a_rationale() -> None:
    _, last = messages("Let p be 1.\nThen p is 1.\n#### 1,000")
    assert (last.reasoning_content, last.content) == ("Let p be 1.\nThen p is 1.", "The answer is 1,000.")


def test_the_number_and_other_fields_are_kept() -> None:
    trajectory = FORMAT.convert_record({"question": "x", "answer": "#### 72 ", "split": "train"}, "r")
    assert trajectory.extra == {"gsm8k": {"answer": "72", "split": "train"}}
    assert trajectory.tools == (CALCULATOR,)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"question": "", "answer": "#### 1"}, "question: String should have at least 1"),
        ({"question": "x", "answer": "72"}, "no last line with ####"),
        ({"question": "x", "answer": "#### 1\nmore"}, "no last line with ####"),
        ({"question": "x", "answer": "a <<1+1>>2\n#### 2"}, "not <<expression=result>>"),
        ({"question": "x", "answer": "a <<1+1=2\n#### 2"}, "not <<expression=result>>"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_it_recognises_its_own_records_only() -> None:
    assert FORMAT.looks_like({"question": "x", "answer": ANSWER})
    assert not FORMAT.looks_like({"question": "x", "answer": "72"})
    assert not FORMAT.looks_like({"question": "x", "answer": [ANSWER]})


PIECES = st.lists(
    st.sampled_from(["She sold ", "<<", ">>", "<<1+1=2>>", "=", "$", "2 ", "\n", "#### ", "7"]), max_size=9
)
JSON = st.recursive(st.none() | st.integers() | st.text(max_size=6), lambda inner: st.lists(inner, max_size=3))


def test_an_annotation_behind_the_final_mark_is_rejected() -> None:
    with pytest.raises(RecordError, match="the last line holds an annotation"):
        FORMAT.convert_record({"question": "x", "answer": "#### <<1+1=2>>"}, "r")


@given(JSON | st.fixed_dictionaries({"question": st.just("x"), "answer": PIECES.map("".join) | JSON}))
def test_any_record_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        found = FORMAT.convert_record(anything, "r").messages
    except RecordError as error:
        assert str(error)
        return
    assert isinstance(found[-1], AssistantMessage) and found[-1].content is not None
    assert sum(isinstance(m, ToolMessage) for m in found) == anything["answer"].count("<<1+1=2>>")
