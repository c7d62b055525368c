from __future__ import annotations

import io

from synthaug.generation.progress import telling


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")

    with telling() as tell:
        tell(16, 40)

    assert "16/40" in screen.getvalue()
    assert "drawn 16 of 40" not in screen.getvalue()
