"""The smallest real task: about ten seconds of work, a log to follow, a result to fetch.

It estimates pi by throwing points at a square, one round a second, prints each round at once, and
writes its result to /output, from where CloudAI collects it. Nothing but Python's own library.
"""

import json
import os
import platform
import random
import signal
import sys
import time
from pathlib import Path

ROUNDS = 10
ROUND_SECONDS = 1.0
POINTS_PER_ROUND = 50_000
OUTPUT = Path(os.environ.get("OUTPUT_DIR", "/output"))


def say(text: str) -> None:
    """Print a line that is seen at once, also through a pipe."""
    print(text, flush=True)


def stop(_signal: int, _frame: object) -> None:
    """End when the task is cancelled, instead of waiting to be killed."""
    say("Asked to stop: ending early")
    sys.exit(128 + signal.SIGTERM)


def throw(generator: random.Random, points: int) -> int:
    """Count the points that land inside the quarter circle."""
    hits = 0
    for _ in range(points):
        x, y = generator.random(), generator.random()
        hits += x * x + y * y <= 1.0
    return hits


def estimate_pi() -> dict:
    """Run every round and return what was found."""
    generator = random.Random(42)
    begun = time.monotonic()
    hits = 0
    for number in range(1, ROUNDS + 1):
        hits += throw(generator, POINTS_PER_ROUND)
        points = number * POINTS_PER_ROUND
        say(f"Step {number}/{ROUNDS}: {points} points, pi is about {4 * hits / points:.5f}")
        # A slow machine has no time left to wait for.
        time.sleep(max(0.0, begun + number * ROUND_SECONDS - time.monotonic()))
    return {
        "pi": 4 * hits / (ROUNDS * POINTS_PER_ROUND),
        "points": ROUNDS * POINTS_PER_ROUND,
        "seconds": round(time.monotonic() - begun, 3),
    }


def main() -> None:
    """Work, write the result, say so."""
    signal.signal(signal.SIGTERM, stop)
    say(f"Starting on {platform.node()} with Python {platform.python_version()}")
    result = estimate_pi()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / "result.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    say(f"Result written to {path}")
    say("Task completed successfully!")


if __name__ == "__main__":
    main()
