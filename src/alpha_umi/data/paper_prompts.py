"""The paper's prompts: one text a role and one row a step, byte for byte as the reference code writes them.

They are the wire format of its released checkpoints, spelling included. ``{doc}`` is one JSON tool document a line,
``{tool_names}`` the names joined by a comma, ``{history}`` the items that `history_item` writes, ``{thought}`` (the
caller's) the planner's text. The ToolAlpaca wording differs from the ToolBench one only in that it can't give up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from alpha_umi.data.format import PaperRole, Wording

END = "</s>"
"""Ends every item of the history but an observation, which nothing ends."""

_KNOWN = "You have assess to the following apis:\n{doc}\nThe conversation history is:\n{history}\n"
_CALL = (
    "Action: the name of api that should be called in this step, should be exactly in [{tool_names}],\n"
    "Action Input: the api call request."
)


def _prompts(or_give_up: str, or_give_up_if: str) -> Mapping[PaperRole, str]:
    backbone = (
        f"{_KNOWN}You should answer the action of next step in the following format:\n"
        f"The thought to solve the question,\n{_CALL}\n"
        "Once you think the question is finished, output conclusion: the final answer of the question"
        f"{or_give_up_if}.\n"
    )
    planner = (
        f"{_KNOWN}You are the assistant to plan what to do next and whether is caller's or conclusion's turn to "
        "answer.\nAnswer with a following format:\n"
        f"The thought of the next step, followed by Next: caller or conclusion{or_give_up}."
    )
    caller = (
        f"{_KNOWN}The thought of this step is:\n{{thought}}\n"
        f"Base on the thought make an api call in the following format:\n{_CALL}"
    )
    summarizer = "Make a conclusion based on the conversation history:\n{history}"
    return MappingProxyType({"backbone": backbone, "planner": planner, "caller": caller, "summarizer": summarizer})


PROMPTS: Mapping[Wording, Mapping[PaperRole, str]] = MappingProxyType(
    {
        "toolbench": _prompts(" or give up", " or give up if you think you cannot answer this question"),
        "toolalpaca": _prompts("", ""),
    }
)
"""The templates by wording and role."""

OPENINGS: Mapping[PaperRole, str] = MappingProxyType(
    {"backbone": " assistant: ", "planner": " assistant: ", "caller": " caller: ", "summarizer": " conclusion: "}
)
"""What follows the prompt: the header of the turn that the role is to write."""


def history_item(speaker: str, text: str) -> str:
    """One turn of the history; ``speaker`` is user, assistant, caller, observation or conclusion."""
    return f"{speaker}: {text}{'' if speaker == 'observation' else END}"


def tool_documents(tools: Sequence[Mapping[str, Any]]) -> str:
    """The text of ``{doc}``: one tool document (``Name``, ``function``, ``input``) a line, each line ended."""
    return "".join(json.dumps(tool) + "\n" for tool in tools)


def fill(
    role: PaperRole,
    tools: Sequence[Mapping[str, Any]],
    history: str,
    thought: str = "",
    wording: Wording = "toolbench",
) -> str:
    """The prompt of a role, its opening included.

    Placeholders are replaced one after the other, as in the reference code, so that text which holds one of a later
    placeholder's name is replaced too; ``{thought}`` is the caller's alone.
    """
    names = ", ".join(tool["Name"] for tool in tools)
    text = PROMPTS[wording][role].replace("{doc}", tool_documents(tools)).replace("{tool_names}", names)
    text = text.replace("{history}", history)
    return (text.replace("{thought}", thought) if role == "caller" else text) + OPENINGS[role]
