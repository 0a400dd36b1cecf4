"""GSM8K: calculator annotations become programs that give the answer; no result is known before its program has run."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected
from alpha_umi.data.gsm8k import FORMAT, Question, read_questions
from alpha_umi.data.programs import PYTHON
from alpha_umi.data.records import RecordError
from alpha_umi.errors import DataError
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage

ANSWER = """Natalia sold 48/2 = $<<48/2=24>>24 clips in May.
She sold 48+24 = <<48+24=72>>72 clips.
#### 72"""


def messages(answer: str) -> tuple[Any, ...]:
    return FORMAT.convert_record({"question": "How many?", "answer": answer}, "r").messages


@pytest.mark.parametrize(
    ("name", "converted", "programs", "rejected"),
    [
        ("train.jsonl", 7001, 22856, {"gives another number": 377, "nothing to run": 95}),
        ("test.jsonl", 1207, 4085, {"gives another number": 93, "nothing to run": 18, "is no number": 1}),
    ],
)
def test_of_the_real_files_what_gives_its_answer_is_converted(
    real_data: Path, name: str, converted: int, programs: int, rejected: dict[str, int]
) -> None:
    found = list(FORMAT.convert(real_data / "gsm8k" / name))
    reasons = [one.reason for one in found if isinstance(one, Rejected)]
    trajectories = [one for one in found if isinstance(one, Trajectory)]
    made = [sum(isinstance(m, ToolMessage) for m in one.messages) for one in trajectories]
    assert (len(made), sum(made), min(made)) == (converted, programs, 1)
    assert {text: sum(text in reason for reason in reasons) for text in rejected} == rejected
    assert len(reasons) == sum(rejected.values())


def test_an_annotation_is_a_program_and_the_words_before_it_its_rationale() -> None:
    asked, first, result, second, _, last = messages(ANSWER)
    assert asked == UserMessage("How many?")
    assert first.reasoning_content == "Natalia sold 48/2"
    assert (first.tool_calls[0].name, first.tool_calls[0].arguments) == ("python", '{"code": "48/2"}')
    assert result == ToolMessage("call_1", "24.0")
    assert second.reasoning_content == "24 clips in May.\nShe sold 48+24"
    assert (last.reasoning_content, last.content) == ("72 clips.", "The answer is 72.")


def test_a_result_may_be_rounded_and_written_with_separators() -> None:
    _, _, result, _, last_result, last = messages("<<10/3=3.33>> <<600*2=1,200>>\n#### 1,200")
    assert (result.content, last_result.content, last.content) == ("3.3333333333333335", "1200", "The answer is 1,200.")


def test_the_number_and_other_fields_are_kept() -> None:
    trajectory = FORMAT.convert_record({"question": "x", "answer": "<<72=72>>\n#### 72 ", "split": "train"}, "r")
    assert trajectory.extra == {"gsm8k": {"answer": "72", "split": "train"}}
    assert trajectory.tools == (PYTHON,)


def test_all_questions_are_read_those_without_a_trajectory_included(tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    file.write_text(
        "".join(json.dumps({"question": "How many?", "answer": a}) + "\n" for a in (ANSWER, "No.\n#### 1,000"))
    )
    assert list(read_questions(file)) == [
        Question("test-0", "How many?", "72", 2), Question("test-1", "How many?", "1,000", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["{", '{"question": "x"}', '{"question": "x", "answer": "1"}', "[]"])
def test_a_file_of_something_else_holds_no_questions(tmp_path: Path, line: str) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "x", "answer": "#### 1"}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"test\.jsonl, line 2: "):
        list(read_questions(tmp_path / "test.jsonl"))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"question": "", "answer": "#### 1"}, "question: String should have at least 1"),
        ({"question": "x", "answer": "72"}, "no last line with ####"),
        ({"question": "x", "answer": "#### 1\nmore"}, "no last line with ####"),
        ({"question": "x", "answer": "a <<1+1>>2\n#### 2"}, "not <<expression=result>>"),
        ({"question": "x", "answer": "a <<1+1=2\n#### 2"}, "not <<expression=result>>"),
        ({"question": "x", "answer": "Let p be 1.\n#### 1"}, "nothing to run"),
        ({"question": "x", "answer": "<<1+1=2>>\n#### 3"}, "the last program gives another number"),
        ({"question": "x", "answer": "<<1+1=4>>\n#### 2"}, "another number than its annotation"),
        ({"question": "x", "answer": "<<1+1=two>>\n#### 2"}, "a result is no number"),
        ({"question": "x", "answer": "<<1+1=2>>\n#### nan"}, "a result is no number"),
        ({"question": "x", "answer": "<<1+x=2>>\n#### 2"}, "no arithmetic"),
        ({"question": "x", "answer": "<<1/0=2>>\n#### 2"}, "no arithmetic: ZeroDivisionError"),
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
    st.sampled_from(["She sold ", "<<", ">>", "<<1+1=2>>", "=", "$", "2 ", "\n", "#### ", "7", "<<2=2>>"]), max_size=9
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
    programs = anything["answer"].count("<<1+1=2>>") + anything["answer"].count("<<2=2>>")
    assert sum(isinstance(m, ToolMessage) for m in found) == programs > 0
