"""Arguments and an answer as typed objects, by `parse` of the `openai` package: python openai_parse.py [BASE_URL]."""

from bank import MODEL, QUESTION, bankly_get_balance, base_url, show
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel


class GetBalance(BaseModel):
    """Get the balance of a bank account."""

    account_id: str


class Balance(BaseModel):
    """What the answer has to be."""

    balance: int


client = OpenAI(base_url=base_url(), api_key="none")
tools = [pydantic_function_tool(GetBalance, name="bankly_get_balance")]
messages = [{"role": "user", "content": QUESTION}]
show("user", QUESTION)
for _ in range(8):
    made = client.chat.completions.parse(model=MODEL, messages=messages, tools=tools, response_format=Balance)
    message = made.choices[0].message
    messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
    if not message.tool_calls:
        break
    for one in message.tool_calls:
        asked = one.function.parsed_arguments  # a GetBalance
        result = bankly_get_balance(asked.account_id)
        messages.append({"role": "tool", "tool_call_id": one.id, "content": result})
show("answer", repr(message.parsed) if message.parsed else message.refusal)
