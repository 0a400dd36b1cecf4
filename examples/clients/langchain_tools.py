"""A conversation with a bound tool, by LangChain's ChatOpenAI: python langchain_tools.py [BASE_URL]."""

from bank import MODEL, QUESTION, bankly_get_balance, base_url, show
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

get_balance = tool(bankly_get_balance)
model = ChatOpenAI(model=MODEL, base_url=base_url(), api_key="none").bind_tools([get_balance])
messages: list[BaseMessage] = [HumanMessage(QUESTION)]
show("user", QUESTION)
for _ in range(8):
    message = model.invoke(messages)
    messages.append(message)
    if not message.tool_calls:
        break
    messages += [get_balance.invoke(call) for call in message.tool_calls]
show("answer", messages[-1].content or messages[-1].additional_kwargs.get("refusal"))
