"""``python -m gptnode`` is ``gptnode``."""

from __future__ import annotations

from gptnode.cli.main import main

if __name__ == "__main__":
    main()
