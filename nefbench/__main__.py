"""Entry point of the ``nefbench`` command."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_ROOMS = ("fitting", "classifiers", "studies")


def main() -> None:
    """Run the command line, after checking that no other package took one of our names."""
    home = Path(__file__).resolve().parent.parent
    for room in _ROOMS:
        found = importlib.util.find_spec(room)
        origin = Path(found.origin).resolve() if found and found.origin else None
        if origin is None or origin.parent.parent != home:
            sys.stderr.write(
                f"error: package {room!r} is shadowed: expected it in {home / room}, "
                f"got {origin}; rename that folder or change the working directory\n"
            )
            raise SystemExit(2)

    from nefbench.cli.app import app

    app(prog_name="nefbench")


if __name__ == "__main__":
    main()
