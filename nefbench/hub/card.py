"""The dataset card: a README.md whose YAML header lets ``load_dataset`` open the folder."""

from __future__ import annotations

import html
import json
from pathlib import Path

from nefbench import files
from nefbench.weights import Manifest
from nefbench.weights.manifest import ConfigEntry

CARD_NAME = "README.md"
_MARK = "<!-- written by nefbench; edit freely after removing this line -->"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the card of a neural dataset folder; a card edited by a person stays as it is."""
    path = folder / CARD_NAME
    if path.exists() and _MARK.encode() not in path.read_bytes():
        return
    files.write_text(path, render_card(manifest))


def render_card(manifest: Manifest) -> str:
    """Return the card's text: YAML header, then one table row per config."""
    lines = ["---", "tags:"]
    lines += [f"- {tag}" for tag in ("neural-fields", "implicit-neural-representations",
                                     "weight-space-learning", "nefbench")]  # fmt: skip
    lines += ["size_categories:", f"- {_size_category(manifest)}"]
    # Under the name of a config without files ``load_dataset`` would open those of all others.
    started = {name: entry for name, entry in manifest.configs.items() if entry.parts}
    lines += ["configs:"] if started else []
    for index, (name, entry) in enumerate(started.items()):
        lines.append(f"- config_name: {json.dumps(name)}")  # bare, 12 is a number and no is false
        if index == 0:
            lines.append("  default: true")
        lines.append("  data_files:")
        for split in entry.splits:
            if any(part.split == split.name for part in entry.parts):
                lines.append(f"  - split: {split.name}")
                lines.append(f"    path: {name}/{split.name}/*.parquet")
    lines += ["---", _MARK, "", "# Neural fields as data", "", _INTRODUCTION, ""]
    lines += ["| config | field | weights per field | start | fitted to | fields |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    lines += [_row(name, entry) for name, entry in manifest.configs.items()]
    return "\n".join([*lines, ""])


_INTRODUCTION = """Each row holds the weights of one small neural network that represents one
signal. `nefbench.json` names the tensors in each row, their order and how they were fitted.

```python
from datasets import load_dataset  # datasets >= 4

rows = load_dataset("path/of/this/folder", "name of a config", split="train").with_format("torch")
rows[0]["weights"]
```"""


def _row(name: str, entry: ConfigEntry) -> str:
    start = entry.fit.get("init", {}).get("kind", "unknown")
    signals = f"{entry.signals.name} ({entry.signals.source}; licence: {entry.signals.licence})"
    if entry.properties:
        signals += f"; properties: {', '.join(entry.properties)}"
    cells = [name, entry.field.kind, str(entry.spec.num_params), start, signals,
             str(entry.num_finished)]  # fmt: skip
    return "| " + " | ".join(map(_plain_text, cells)) + " |"


def _plain_text(cell: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    one_line = html.escape(" ".join(cell.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~$" else letter for letter in one_line)


def _size_category(manifest: Manifest) -> str:
    total = sum(entry.num_fields for entry in manifest.configs.values())
    return next((label for limit, label in _SIZES if total < limit), "1M<n<10M")
