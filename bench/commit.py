"""Which commit is measured, and whether it is all of what is measured."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
BESIDE = ("bench/results", "README.md")
"""What a benchmark writes, or is written from it: a change there does not change what is measured."""


def commit() -> str:
    """The commit checked out; "-dirty" behind it when files are not as committed."""
    found = _git("rev-parse", "--short=12", "HEAD")
    return found + ("-dirty" if changes() else "") if found else "unknown"


def changes() -> list[str]:
    """Files of this repository that are not as they were committed."""
    return _git("status", "--porcelain", "--", ".", *(f":!{path}" for path in BESIDE)).splitlines()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.rstrip("\n")
