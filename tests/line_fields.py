"""Span lines as their fields, for tests that compare ours with the recorded ones."""

import json


def fields_of_line(line: str) -> list[str]:
    """Name and ids, start, duration, then the quoted pairs by key; those of one key keep their order.

    No recorded value has an unescaped quote behind a blank.
    """
    first, *pairs = line.split(' "')
    *middle, last = pairs
    value, start, duration = last.rsplit(" ", 2)
    by_key = sorted([*middle, value], key=lambda pair: pair.partition('"="')[0])
    return [first, start, duration, *by_key]


def fields_of_lines(lines: list[str]) -> list[list[str]]:
    """Of span lines and span logs alike, in an order of their own."""
    return sorted(
        [json.dumps(json.loads(line), sort_keys=True)]
        if line.startswith("{")
        else fields_of_line(line)
        for line in lines
    )
