r"""What each voice may write, as a grammar for `llguidance`: calls that can be made, decisions that can be read.

============ ======================================================================================================
caller       one call a line, ``{"name": "<a given tool>", "arguments": {<what its schema asks for>}}``
planner      any text, then a line ``Next: Caller`` (if there are tools), ``Next: Summarizer`` or ``Next: Give up``
assistant    any text, then ``Call: `` and calls (if there are tools), ``Answer: `` and text, or ``Give up: `` and text
summarizer   any text: no grammar
============ ======================================================================================================

JSON is spelt as `json.dumps` spells it: ``", "`` and ``": "``, UTF-8 as it is, arguments in the order of the schema, as
`alpha_umi.engines.schemas` adapts it. A schema that `llguidance` can't compile (``uniqueItems``, ``not``, look-around,
a ``oneOf`` whose branches may overlap) leaves the arguments of its tool free, any JSON object; `unconstrained` says of
which tools, and why. Not held either: a key that an open object has twice, and integers of thousands of digits, which
Python won't read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from alpha_umi.engines.schemas import ANY_OBJECT, arguments_schema
from alpha_umi.trajectory import Decision, Tool
from alpha_umi.transcript import Voice

LIMITS = LLParserLimits(
    max_grammar_size=10_000, max_lexer_states=10_000, initial_lexer_fuel=200_000, step_lexer_fuel=50_000,
    step_max_items=5_000, precompute_large_lexemes=False, verbose_errors=False,
)  # fmt: skip
"""What a grammar may take: 0.3 MB as a rule, 15 MB at the very worst, milliseconds a token."""

_REASON = 300
_SPELLING = {
    "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False,
    "json_allowed_escapes": 'nrbtf\\"',  # no \u: it could spell a declared name a second way
}  # fmt: skip


def grammar(voice: Voice, tools: Sequence[Tool]) -> str | None:
    """The grammar of a voice's span, its end token left out; None if anything may stand there."""
    tools = _nameable(tools)
    if voice == "planner":
        return _planner(bool(tools))
    if voice == "assistant":
        return _assistant(tools)
    return "start: calls\n" + _calls(tools)[0] if voice == "caller" and tools else None


def unconstrained(tools: Sequence[Tool]) -> dict[str, str]:
    """The tools whose arguments are not held to their schema, with the reason; all others are."""
    nameable = _nameable(tools)
    names = [tool.name for tool in nameable]
    lost = {tool.name: "UTF-8 can't hold its name, so it can't be called" for tool in tools if tool.name not in names}
    return lost | (_calls(nameable)[1] if nameable else {})


def _nameable(tools: Sequence[Tool]) -> list[Tool]:
    """The tools that a call can name: the first of each name, if UTF-8 can hold it."""
    named: dict[str, Tool] = {}
    for tool in tools:
        with contextlib.suppress(UnicodeEncodeError):
            tool.name.encode()
            named.setdefault(tool.name, tool)
    return list(named.values())


# ---- text with a mark -----------------------------------------------------------------------------------------------


def _planner(tools: bool) -> str:
    decisions = [decision for decision in Decision if tools or decision is not Decision.CALL]
    choice = " | ".join(json.dumps(decision.value) for decision in decisions)
    return f"start: head ({choice})\n{_head('head', 'Next: ')}"


def _assistant(tools: Sequence[Tool]) -> str:
    lines = [r"text: /(.|\n)*/", _head("text_head", "(Answer|Give up): ", None if tools else "Call: ")]
    if not tools:
        return "\n".join(["start: text_head text", *lines])
    return "\n".join(
        ["start: call_head calls | text_head text", *lines, _head("call_head", "Call: "), _calls(tools)[0]]
    )


def _head(name: str, mark: str, never: str | None = None) -> str:
    """A rule for any text, without a line that opens with ``never``, up to the first one that opens with the mark."""
    rest = "" if never is None else rf" & ~/((.|\n)*\n)?{never}(.|\n)*/"
    return f"{name}[lazy]: {name.upper()}\n{name.upper()}: /((.|\\n)*\\n)?{mark}/{rest}"


# ---- calls ----------------------------------------------------------------------------------------------------------


def _calls(tools: Sequence[Tool]) -> tuple[str, dict[str, str]]:
    """The rule ``calls`` with all it needs, and why the arguments of some tools are free."""
    named = {tool.name: tool for tool in tools}
    rules: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name, tool in named.items():
        try:
            rules[name] = json_rule(arguments_schema(tool))
        except ValueError as error:
            reasons[name] = str(error)
    if _uncompiled(named, rules) is not None:
        found = {name: _uncompiled([name], rules) for name in rules}
        reasons |= {name: reason for name, reason in found.items() if reason is not None}
        rules = {name: rule for name, rule in rules.items() if name not in reasons}
        together = _uncompiled(named, rules)
        if together is not None:
            reasons |= dict.fromkeys(rules, f"too many tools at once: {together}")
            rules = {}
    return _joined(named, rules), reasons


def _uncompiled(names: Collection[str], arguments: Mapping[str, str]) -> str | None:
    return problem(f"start: calls\n{_joined(names, arguments)}")


def _joined(names: Collection[str], arguments: Mapping[str, str]) -> str:
    lines = ['calls: call ("\\n" call)*', "call: " + " | ".join(f"call_{number}" for number in range(len(names)))]
    for number, name in enumerate(names):
        head = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
        lines.append(f'call_{number}: {json.dumps(head)} arguments_{number} "}}"')
        lines.append(f"arguments_{number}: {arguments.get(name) or json_rule(ANY_OBJECT)}")
    return "\n".join(lines)


def json_rule(schema: Mapping[str, Any]) -> str:
    """What JSON of a schema is in a grammar, spelt as everywhere here."""
    return "%json " + json.dumps({**schema, "x-guidance": _SPELLING})


def problem(text: str) -> str | None:
    """Why a grammar can't be compiled within `LIMITS`, in a line; None if it can."""
    found, messages = LLMatcher.validate_grammar_with_warnings(text, limits=LIMITS)
    if not found:
        return None
    text = messages[0].partition("\nerror: ")[2] or messages[0].partition("failed to compile JSON schema: ")[2]
    return (text or messages[0]).strip().partition("\n")[0][:_REASON]
