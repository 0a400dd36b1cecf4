"""A conversation with a tool, by smolagents' OpenAI model: python smolagents_tools.py [BASE_URL].

smolagents wants a tool call in every turn: the answer is one too, of its own tool `final_answer`.
"""

from bank import DESCRIPTION, MODEL, PARAMETERS, QUESTION, bankly_get_balance, base_url, show
from smolagents import LogLevel, OpenAIModel, Tool, ToolCallingAgent


class GetBalance(Tool):
    """The bank's tool, as smolagents has it."""

    name = "bankly_get_balance"
    description = DESCRIPTION
    inputs = {"account_id": {**PARAMETERS["properties"]["account_id"], "description": "account id"}}  # noqa: RUF012
    output_type = "string"

    def forward(self, account_id: str) -> str:
        """Makes the call."""
        return bankly_get_balance(account_id)


model = OpenAIModel(MODEL, api_base=base_url(), api_key="none")
agent = ToolCallingAgent([GetBalance()], model, max_steps=4, verbosity_level=LogLevel.OFF)
# its own is thousands of characters about how to call tools, which this model knows
agent.prompt_templates["system_prompt"] = "Call tools. Give the answer to final_answer."
show("user", QUESTION)
show("answer", agent.run(QUESTION))
