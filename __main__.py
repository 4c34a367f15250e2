"""`python -m peft_atlas` is the command `bench`."""

from __future__ import annotations

import sys

from .bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
