"""The tool of program-aided trajectories, and what it says to arithmetic."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from alpha_umi.trajectory import Tool

PYTHON = Tool.of(
    "python",
    "Runs a Python program and returns what it prints.",
    {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "The program."}},
        "required": ["code"],
    },
)
"""The one tool; the value of a program's last expression counts as printed. `alpha_umi.tools.program` executes it."""

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def value_of(expression: str) -> int | float:
    """The value of a program of numbers, ``+ - * / //`` and parentheses, as Python has it; nothing else is evaluated.

    Raises:
        ValueError: It is something else, or has no value.
    """
    try:
        value = _value(ast.parse(expression, mode="eval").body)
        if not math.isfinite(value):
            raise OverflowError
        return value
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"no arithmetic: {type(error).__name__}") from error


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand))
    raise ValueError("no arithmetic: more than numbers, + - * / // and parentheses")
