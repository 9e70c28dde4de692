"""Opens connections from inside a network namespace, for processes outside it.

    python agent.py serve SOCKET

is run in the namespace, and keeps it alive. It listens on the Unix socket SOCKET, which belongs to
no network namespace. A client sends a line of JSON, `[address, port]`, and gets one back: null and
with it the connected socket, which stays of this namespace wherever it is used; or the number and
text of what went wrong.

    python agent.py relay FD SOCKET PORT

is run outside. It accepts on the listening socket that it inherited as FD, and joins each
connection to one that the agent at SOCKET makes to 127.0.0.1:PORT; where nobody listens there, the
connection is closed at once.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path

_PATIENCE = 10.0  # seconds


def connect(agent: Path, address: str, port: int) -> socket.socket:
    """A TCP connection made by the agent at that socket. Raises OSError as `connect` does."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(os.fspath(agent))
        asked.sendall(json.dumps([address, port]).encode() + b"\n")
        answer, fds, _, _ = socket.recv_fds(asked, 1024, 1)
    problem = json.loads(answer) if answer else (None, f"the agent at {agent} is gone")
    if problem:
        raise OSError(*problem)
    return socket.socket(fileno=fds[0])


def serve(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_answer, args=(client,), daemon=True).start()


def _answer(client: socket.socket) -> None:
    with client, client.makefile("rb") as lines:
        address, port = json.loads(lines.readline())
        try:
            connected = socket.create_connection((address, port), timeout=_PATIENCE)
        except OSError as error:
            client.sendall(json.dumps([error.errno, str(error)]).encode() + b"\n")
            return
        with connected:
            connected.settimeout(None)
            socket.send_fds(client, [b"null\n"], [connected.fileno()])


async def relay(listener: int, agent: Path, port: int) -> None:
    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            inside = await asyncio.to_thread(connect, agent, "127.0.0.1", port)
            there, back = await asyncio.open_connection(sock=inside)
            await asyncio.gather(_carry(reader, back), _carry(there, writer))
            back.close()
        writer.close()

    server = await asyncio.start_server(join, sock=socket.socket(fileno=listener))
    await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        asyncio.run(relay(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
