"""A conversation with a tool, by the `openai` package: python openai_sync.py [BASE_URL]."""

from bank import MODEL, QUESTION, TOOL, base_url, call, show
from openai import OpenAI

client = OpenAI(base_url=base_url(), api_key="none")
messages = [{"role": "user", "content": QUESTION}]
show("user", QUESTION)
for _ in range(8):
    message = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
    show("planner", getattr(message, "reasoning_content", None))
    messages.append(message.model_dump(exclude_none=True))
    if not message.tool_calls:
        break
    for made in message.tool_calls:
        result = call(made.function.name, made.function.arguments)
        messages.append({"role": "tool", "tool_call_id": made.id, "content": result})
show("answer", message.content or message.refusal)
