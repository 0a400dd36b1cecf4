"""The rationale and the answer as they are written, by the `openai` package: python openai_stream.py [BASE_URL]."""

from bank import MODEL, QUESTION, TOOL, base_url, call, show, write
from openai import OpenAI

client = OpenAI(base_url=base_url(), api_key="none")
messages = [{"role": "user", "content": QUESTION}]
show("user", QUESTION)
for _ in range(8):
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as stream:
        for event in stream:
            if event.type == "chunk" and event.chunk.choices:
                delta = event.chunk.choices[0].delta
                write(getattr(delta, "reasoning_content", None) or delta.content or "")
        message = stream.get_final_completion().choices[0].message
    write("\n")
    messages.append(message.model_dump(exclude_none=True))
    if not message.tool_calls:
        break
    for made in message.tool_calls:
        result = call(made.function.name, made.function.arguments)
        messages.append({"role": "tool", "tool_call_id": made.id, "content": result})
show("answer", message.content or message.refusal)
