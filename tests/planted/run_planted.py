"""A run in a process of its own, for tests that end it: run_planted.py RESULTS TASK..."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from peft_atlas.bench import processes
from peft_atlas.bench.runner import Limits, Runner
from peft_atlas.bench.store import Store
from planted_grid import cell, environment  # type: ignore[import-not-found]

# a shell that runs this in the background has SIGINT ignored, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
processes.PRELOADED = "peft_atlas.bench.child"  # no torch: starts at once
runner = Runner(Store(Path(sys.argv[1])), Limits(jobs=2), environment(), target="planted_cells:by_task")
try:
    runner.run([cell(task) for task in sys.argv[2:]])
except KeyboardInterrupt:
    sys.exit(130)
