"""Runs a package's ``main.py`` with the network cut off and speechtune out of reach; started with ``python -I``.

Every attempt to reach the network, and to import speechtune, fails as it would in the runtime and is written down.
"""

from __future__ import annotations

import runpy
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    """``guarded.py MAIN RECORD``."""
    script, record = sys.argv[1], Path(sys.argv[2])

    def refuse(what: str) -> NoReturn:
        with record.open("a", encoding="utf-8") as stream:
            stream.write(what.replace("\n", " ") + "\n")
        raise OSError(f"[Errno 101] Network is unreachable ({what})")

    class Finder:
        """Before every other finder."""

        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            """Refuse speechtune; nothing to say about other modules."""
            if name.split(".")[0] == "speechtune":
                with record.open("a", encoding="utf-8") as stream:
                    stream.write(f"import of {name}\n")
                raise ModuleNotFoundError(f"No module named {name!r} (rehearsal)", name=name)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and getattr(arguments[0], "family", None) != getattr(socket, "AF_UNIX", None):
            refuse(f"connection to {arguments[1]}")
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            refuse(f"look-up of {arguments[0]}")

    sys.meta_path.insert(0, Finder())
    sys.addaudithook(watch)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
