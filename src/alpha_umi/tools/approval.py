"""Who has to agree before a call is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from alpha_umi.errors import ToolError, UserError

Ask = Callable[[str, Mapping[str, Any]], bool]
"""Given a call's name and arguments, says whether it may be made."""


class ApprovalPolicy(StrEnum):
    """Which calls a person confirms."""

    ALWAYS = "always"
    """Every call."""
    WRITES = "writes"
    """Calls of tools that say they change something."""
    NEVER = "never"
    """None: every call is made."""


@dataclass(frozen=True)
class Approval:
    """A policy, and whom to ask.

    Attributes:
        policy: Which calls have to be confirmed.
        ask: Asks for a call; None if there is nobody, and then every call that has to be confirmed is refused.
    """

    policy: ApprovalPolicy = ApprovalPolicy.WRITES
    ask: Ask | None = None

    @classmethod
    def of(cls, policy: str, ask: Ask | None) -> Approval:
        """An approval of a policy's name.

        Raises:
            UserError: There is no such policy.
        """
        if policy not in set(ApprovalPolicy):
            raise UserError(f"--approve {policy}: there is no such policy; there are {', '.join(ApprovalPolicy)}")
        return cls(ApprovalPolicy(policy), ask)

    def confirm(self, name: str, arguments: Mapping[str, Any], writes: bool) -> None:
        """Returns if the call may be made.

        Raises:
            ToolError: ``not_approved``: nobody is there to confirm it, or whoever was asked said no.
        """
        if self.policy is ApprovalPolicy.NEVER or (self.policy is ApprovalPolicy.WRITES and not writes):
            return
        if self.ask is None:
            raise ToolError("not_approved", f"a person has to confirm a call of {name}, and there is nobody to ask")
        if not self.ask(name, arguments):
            raise ToolError("not_approved", f"the user does not want this call of {name} to be made")
