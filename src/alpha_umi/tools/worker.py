"""The process that runs a tool module's functions: ``python -m alpha_umi.tools.worker MODULE``.

It reads requests from its standard input and writes replies to its standard output, both as frames: four bytes of
length, then JSON. What the functions themselves print goes nowhere. The first reply (id 0) lists the functions or says
why there are none. When its input ends, because whoever started it has closed it or is gone, it ends too, whatever a
function is doing.

Functions run in one thread, the one that imported the module: asynchronous ones side by side, synchronous ones holding
up all others.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from alpha_umi.errors import ToolError
from alpha_umi.tools.functions import Function, load_module, public_functions
from alpha_umi.tools.text import observable

REPLY_BYTES = 1024 * 1024
"""Bound of a result's text; a longer one keeps its head and its tail."""
FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct("!I")
_GRACE_SECONDS = 2.0


def read_frame(stream: IO[bytes]) -> Any:
    """The next frame, or None at the end of the stream.

    Raises:
        ValueError: This is no frame.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    data = stream.read(length)
    return json.loads(data) if len(data) == length else None


def write_frame(stream: IO[bytes], value: Mapping[str, Any]) -> None:
    """Writes one frame."""
    data = json.dumps(value).encode()
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def main() -> None:
    """Runs the process."""
    requests, replies = _own_streams()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    functions: dict[str, Function] = {}
    running: set[asyncio.Task[None]] = set()

    def start(request: dict[str, Any]) -> None:
        task = loop.create_task(_answer(functions[request["name"]], request, replies))
        running.add(task)
        task.add_done_callback(running.discard)

    def listen() -> None:
        while (request := read_frame(requests)) is not None:
            loop.call_soon_threadsafe(start, request)
        _end(loop)

    threading.Thread(target=listen, daemon=True).start()
    try:
        functions.update((function.name, function) for function in public_functions(load_module(sys.argv[1])))
    except BaseException as error:  # whatever a foreign module does when it is imported, exiting included
        write_frame(replies, {"id": 0, "error": [type(error).__name__, observable(_words(error), REPLY_BYTES)]})
        return
    write_frame(replies, {"id": 0, "functions": [_described(function) for function in functions.values()]})
    loop.run_forever()


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for the frames alone; what anyone else writes or reads there is nothing."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    return requests, replies


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Lets the process end by itself (what it registered to happen then happens), but not for long."""
    loop.call_soon_threadsafe(loop.stop)
    threading.Event().wait(_GRACE_SECONDS)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with whatever processes the functions have started
    os._exit(1)


def _described(function: Function) -> dict[str, Any]:
    return {
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
        "writes": function.writes,
        "asynchronous": function.asynchronous,
    }


async def _answer(function: Function, request: Mapping[str, Any], replies: IO[bytes]) -> None:
    try:
        reply: dict[str, Any] = {"text": observable(await function.call(request["arguments"]), REPLY_BYTES)}
    except ToolError as error:
        reply = {"error": [error.kind, observable(_words(error), REPLY_BYTES)]}
    except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:
        reply = {"error": ["exception", observable(f"{type(error).__name__}: {_words(error)}", REPLY_BYTES)]}
    write_frame(replies, {"id": request["id"], **reply})


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # its own __str__ is broken too
        return ""


if __name__ == "__main__":
    main()
