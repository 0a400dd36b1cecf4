"""A conversation with a tool, by the OpenAI Agents SDK in chat-completions mode: python agents_sdk.py [BASE_URL]."""

from agents import Agent, FunctionTool, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from bank import DESCRIPTION, MODEL, PARAMETERS, QUESTION, base_url, call, show
from openai import AsyncOpenAI


async def get_balance(context: object, arguments: str) -> str:
    """Makes the call."""
    return call("bankly_get_balance", arguments)


set_tracing_disabled(True)  # traces would go to OpenAI
client = AsyncOpenAI(base_url=base_url(), api_key="none")
tool = FunctionTool("bankly_get_balance", DESCRIPTION, PARAMETERS, get_balance, strict_json_schema=False)
agent = Agent("bank", model=OpenAIChatCompletionsModel(MODEL, client), tools=[tool])
show("user", QUESTION)
show("answer", Runner.run_sync(agent, QUESTION, max_turns=8).final_output)
