"""A strategy as typed on a command line: ``dfsdt`` or ``dfsdt:width=3,decisions=100,tokens=20000``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from alpha_umi.agent.best_of_n import BestOfN
from alpha_umi.agent.dfsdt import Dfsdt
from alpha_umi.agent.limits import Limits
from alpha_umi.agent.strategies import React, Strategy
from alpha_umi.engines.base import Sampling
from alpha_umi.errors import UserError

_STRATEGIES = {"react": React, "dfsdt": Dfsdt, "best-of-n": BestOfN}
_LIMITS: dict[str, Any] = {"steps": 0, "seconds": 0.0, "tokens": 0}
_SWITCH = {"yes": True, "no": False}


@dataclass(frozen=True)
class ChosenStrategy:
    """A strategy, what its runs may take, and how their tokens are chosen."""

    strategy: Strategy
    limits: Limits
    sampling: Sampling = field(default_factory=Sampling)


def chosen_strategy(text: str, prompt: bool = False, temperature: float = 0.0) -> ChosenStrategy:
    """Reads a strategy's name and options.

    Options are the fields of its class, and the limits ``steps`` (of a path), ``seconds`` and ``tokens``.

    Args:
        text: As typed.
        prompt: Whether a search shows the roles what was tried, unless the text says so.
        temperature: Of every span; 0 is greedy.

    Raises:
        UserError: No such strategy or option, or a value that it can't have.
    """
    name, _, given = text.partition(":")
    if name not in _STRATEGIES:
        raise UserError(f"--strategy {name}: there is no such strategy; there are {', '.join(_STRATEGIES)}")
    kind = _STRATEGIES[name]
    own = {one.name: one.default for one in fields(kind) if one.init}
    options = {"prompt": prompt} if "prompt" in own else {}
    limits: dict[str, Any] = {}
    for part in filter(None, given.split(",")):
        key, _, value = part.partition("=")
        if key in own:
            options[key] = _value(text, key, value, own[key])
        elif key in _LIMITS:
            limits[key] = _value(text, key, value, _LIMITS[key])
        else:
            raise UserError(f"--strategy {text}: no option {key!r}; {name} has {', '.join([*own, *_LIMITS])}")
    strategy = kind(**options)
    return ChosenStrategy(strategy, replace(strategy.limits(), **limits), Sampling(temperature))


def _value(text: str, key: str, value: str, default: Any) -> Any:
    """The value as what the default is."""
    try:
        return _SWITCH[value] if isinstance(default, bool) else type(default)(value)
    except (ValueError, KeyError) as error:
        wanted = "yes or no" if isinstance(default, bool) else "a number"
        raise UserError(f"--strategy {text}: {key} is {value!r}; it must be {wanted}") from error
