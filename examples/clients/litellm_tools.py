"""A conversation with a tool, by LiteLLM: python litellm_tools.py [BASE_URL]."""

from bank import MODEL, QUESTION, TOOL, base_url, call, show
from litellm import completion

messages: list = [{"role": "user", "content": QUESTION}]
show("user", QUESTION)
for _ in range(8):
    made = completion(f"openai/{MODEL}", messages, tools=[TOOL], base_url=base_url(), api_key="none")
    message = made.choices[0].message
    show("planner", message.get("reasoning_content"))
    messages.append(message)
    if not message.tool_calls:
        break
    for one in message.tool_calls:
        result = call(one.function.name, one.function.arguments)
        messages.append({"role": "tool", "tool_call_id": one.id, "content": result})
show("answer", message.content)
