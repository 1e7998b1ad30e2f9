"""How valid inputs become hostile ones: bytes, texts, and values as JSON and YAML hold them. All is drawn from the generator given."""

from __future__ import annotations

import copy
import json
import struct
from random import Random
from typing import Any

DEEP = "@deep@"
"""Stands for a list in a list in a list ..., which no JSON writer would write."""

HUGE = "@huge@"
"""Stands for a whole number of hundreds of digits."""

WORDS = (
    *("", " ", "a", "\0", "\x1b[2J\x1b]0;owned\x07", "../../../etc/passwd", "/etc/passwd", "..", "~root/x", "file:///etc/passwd"),
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', '=HYPERLINK("http://x")', "{{7*7}}", "{split}", "%s%n", "$(id)"),
    *("`id`", "'; DROP TABLE measurements; --", "\ud800", "\u202egnp.exe", "\u0663", "nan", "inf", "-1", "1e999", "0x10", "1_0", "é" * 40),
    *(
        "9" * 5000,
        "A" * 20_000,
        "__class__",
        "sqlite:///x",
        "postgresql://127.0.0.1:1/x",
        "folder:/etc",
        "N0",
        "B1-1-1-1-1_C1-1-1-1-1_R999999",
    ),
    *(
        "B999999-999999-999999-999999-999999_C999999-999999-999999-999999-999999_R1",
        "2026-13-45T99:99:99",
        "!!python/object/apply:os.system",
    ),
)
NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65_537, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**12, 10**30, 0.0, -0.0, 0.5, 1.5, -3.25)
FLOATS = (1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"))
ATOMS: tuple[Any, ...] = (None, True, False, *NUMBERS, *FLOATS, *WORDS, DEEP, HUGE, [], {}, [[]], [None], [1, "a"], {"a": 1}, {"": {}})


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """Bytes with one to four changes: flips, cuts, repeats, foreign words and extreme numbers."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        upto = min(len(out), at + int(rng.expovariate(1 / 12)) + 1)
        change = rng.randrange(8)
        if change == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif change == 1 and out:
            out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif change == 2:
            del out[at:upto]
        elif change == 3:
            out[at:at] = out[at:upto] * rng.choice((1, 2, 50))
        elif change == 4:
            del out[at:]
        elif change == 5:
            out[at:at] = rng.choice((*(word.encode(errors="surrogatepass") for word in WORDS), rng.randbytes(rng.randrange(1, 40))))
        elif change == 6:
            number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1))
            form = rng.choice(("<Q", ">Q", "<I", ">I"))
            wide = struct.pack(form, number % (1 << 8 * struct.calcsize(form)))
            out[at : at + len(wide)] = wide
        else:
            source = rng.randrange(len(out) + 1)
            out[at:upto] = out[source : source + upto - at]
    return bytes(out)


def mutate_text(rng: Random, text: str) -> str:
    """A text with one to three changes: letters, numbers made extreme, repeats, cuts, foreign words."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(text) + 1)
        upto = min(len(text), at + rng.randrange(1, 6))
        change = rng.randrange(7)
        if change == 0:
            text = text[:at] + rng.choice('-_BCR0919,\n;=" .\t\0é\u0663') + text[upto:]
        elif change == 1:
            text = text[:at] + text[upto:]
        elif change == 2:
            text = text[:at] + text[at:upto] * rng.choice((2, 3, 400)) + text[upto:]
        elif change == 3:
            text = text[:at]
        elif change == 4:
            text = text[:at] + str(rng.choice(NUMBERS)) + text[at:]
        elif change == 5:
            text = text[:at] + rng.choice(WORDS) + text[at:]
        else:
            text = text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x250), rng.randrange(0xD800)))) + text[at:]
    return text


def mutate_value(rng: Random, value: Any) -> Any:
    """A copy of lists, tables and atoms with one to three changes: other types, extreme atoms, missing, new and repeated parts."""
    root = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder, key = rng.choice(_places(root))
        change, there = rng.randrange(6), holder[key]
        if change <= 1:
            holder[key] = copy.deepcopy(rng.choice(ATOMS))
        elif change == 2 and holder is not root:
            del holder[key]
        elif change == 3 and isinstance(holder, dict):
            holder[rng.choice(WORDS)] = holder.pop(key) if rng.random() < 0.5 else there
        elif change == 4:
            holder[key] = rng.choice(([there], {"a": there}, str(there)[:2000], [there] * 3))
        elif isinstance(there, str):
            holder[key] = mutate_text(rng, there[:2000])
        elif isinstance(there, int | float):
            holder[key] = rng.choice((*NUMBERS, *FLOATS, -there, there + 1))
        else:
            holder[key] = copy.deepcopy(rng.choice(ATOMS))
    return root[0]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place within lists and tables, as the container and the key or index."""
    found: list[tuple[Any, Any]] = []
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, part in inner:
        found.append((value, key))
        if isinstance(part, dict | list):
            found += _places(part)
    return found


def as_json(value: Any) -> bytes:
    """JSON of a mutated value; what no writer would write is put in as text."""
    text = json.dumps(value)
    if DEEP in text:
        text = text.replace(f'"{DEEP}"', "[" * 30_000 + "]" * 30_000)
    return text.replace(f'"{HUGE}"', "9" * 400).encode(errors="surrogatepass")


def json_like(rng: Random, value: Any) -> bytes:
    """A JSON file gone wrong: four times of five in what it says, else in its letters."""
    return as_json(mutate_value(rng, value)) if rng.random() < 0.8 else mutate_bytes(rng, as_json(value))
