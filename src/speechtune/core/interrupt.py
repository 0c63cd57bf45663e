"""An interrupt that cannot get lost.

Python drops a ``KeyboardInterrupt`` that arrives while a destructor or a garbage collection callback runs, and some
libraries swallow it. The handler here also remembers it, and every step of a progress bar raises it again.
"""

from __future__ import annotations

import signal
from typing import Any, NoReturn

_asked = False


def catch_interrupts() -> None:
    """Take SIGINT (unless it is ignored, as in a shell's background) and SIGTERM as the wish to stop."""
    global _asked
    _asked = False
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def stop_if_asked() -> None:
    """Raise the interrupt that has come, if one has.

    Raises:
        KeyboardInterrupt: once for each time the user asked.
    """
    global _asked
    if _asked:
        _asked = False
        raise KeyboardInterrupt


def _interrupt(signum: int, frame: Any) -> NoReturn:
    global _asked
    _asked = True
    raise KeyboardInterrupt
