"""Two conversations at one time, by the asynchronous client of `openai`: python openai_async.py [BASE_URL]."""

import asyncio

from bank import MODEL, QUESTION, TOOL, base_url, call, show
from openai import AsyncOpenAI


async def converse(client: AsyncOpenAI, question: str) -> str | None:
    """Asks, makes the calls that the model wants, and returns what it says in the end."""
    messages = [{"role": "user", "content": question}]
    show("user", question)
    for _ in range(8):
        made = await client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL])
        message = made.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return message.content or message.refusal
        for one in message.tool_calls:
            result = call(one.function.name, one.function.arguments)
            messages.append({"role": "tool", "tool_call_id": one.id, "content": result})
    return None


async def main() -> None:
    """Both questions are answered in one batch."""
    async with AsyncOpenAI(base_url=base_url(), api_key="none") as client:
        questions = (QUESTION, "Get the balance of AC-6503.")
        for answer in await asyncio.gather(*(converse(client, question) for question in questions)):
            show("answer", answer)


asyncio.run(main())
