"""The application: a tool that the model may call, and what calls it.

The other scripts of this folder are each one way to reach the model; this is what they have in common. The quickstart's
model has been trained on tools like this one.
"""

import json
import sys

MODEL = "quickstart"
QUESTION = "Do you know the balance of the bank account AC-6503?"
DESCRIPTION = "Get the balance of a bank account."
PARAMETERS = {
    "type": "object",
    "properties": {"account_id": {"type": "string"}},
    "required": ["account_id"],
}
TOOL = {
    "type": "function",
    "function": {"name": "bankly_get_balance", "description": DESCRIPTION, "parameters": PARAMETERS},
}


def bankly_get_balance(account_id: str) -> str:
    """Get the balance of a bank account."""
    balances = {"AC-6503": 6687}
    found = {"balance": balances[account_id]} if account_id in balances else {"error": "no such account"}
    show("tool", f"bankly_get_balance({account_id}) -> {json.dumps(found)}")
    return json.dumps(found)


def call(name: str, arguments: str) -> str:
    """Makes a call of the model's; what is wrong with it is told to the model."""
    if name != "bankly_get_balance":
        return json.dumps({"error": f"there is no tool {name}"})
    try:
        return bankly_get_balance(**json.loads(arguments))
    except (TypeError, ValueError) as error:
        return json.dumps({"error": str(error)})


def base_url() -> str:
    """Where the model is served: the script's argument, or what `umi serve` takes if it is not told otherwise."""
    return sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"


def show(who: str, what: object) -> None:
    """Prints a line of the conversation."""
    write(f"{who:>9}  {what}\n")


def write(text: str) -> None:
    """Prints a part of a line."""
    sys.stdout.write(text)
    sys.stdout.flush()
