"""A person at a terminal: a pseudo-terminal, what is typed, and what comes on the screen."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from sandbox import plain


class Terminal:
    """A command with a terminal of its own, in the foreground of it."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, rows: int = 40) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=folder,
        )
        os.close(slave)
        self.raw = self.screen = ""
        self.read_to = 0

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 200, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def see(self, pattern: str, seconds: float = 15) -> re.Match:
        """Waits until the pattern comes on the screen, behind what was seen before."""
        end = time.monotonic() + seconds
        while True:
            if match := re.compile(pattern, re.M).search(self.screen, self.read_to):
                self.read_to = match.end()
                return match
            rest = end - time.monotonic()
            assert rest > 0, f"{pattern!r} did not come:\n{self.screen[self.read_to:]}"
            if select.select([self.master], [], [], rest)[0]:
                try:
                    self.raw += os.read(self.master, 65536).decode(errors="replace")
                    self.screen = plain(self.raw).replace("\r", "")
                except OSError:
                    # The other side is closed (EIO): what is there is all there will be.
                    end = time.monotonic()

    def ended(self) -> int:
        """The exit status, once everything that was written has been read."""
        self.see(r"\Z") if self.process.poll() is None else None
        return self.process.wait(15)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(15)
        os.close(self.master)
