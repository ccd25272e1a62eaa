"""Former spellings of options, which keep working for one version and say in one line what is written now."""

from __future__ import annotations

import argparse
import os
import sys

FORMER = {
    "train": {"--dataset": "--data", "--output": "--out", "--threads": "--num-threads"},
    "bench": {"--png": "--out", "--threads": "--num-threads"},
    "weights get": {"--to": "--out"},
    "weights calibrate": {"--scale": "--input-scale"},
}
"""For each command what was written in 0.1.0, and what is written now.

Here is what was only renamed. Options of the engine name their former spellings where they are declared (`spellings`);
`--dataset`, `--split` and `--camvid` became parts of `--data KIND:WHERE` (`vidseg_core.cli.data_options`).
"""


def add_former(group, command: str, action: argparse.Action, repeatable: bool = False) -> None:
    """Take the former spellings of an option, too; help does not show them.

    Args:
        group: to add them to: a parser, a group, or, for an option that is required, a mutually exclusive group.
        command: a key of `FORMER`.
        action: what `add_argument` returned for the present spelling.
        repeatable: whether each use adds a value.
    """
    for spelling, now in FORMER[command].items():
        if now in action.option_strings:
            add_spelling(group, spelling, action, repeatable)


def add_spelling(group, spelling: str, action: argparse.Action, repeatable: bool = False) -> None:
    """Take `spelling` for the option `action`, with a notice; help does not show it."""
    kind = _Appended if repeatable else _Stored
    about = {name: getattr(action, name) for name in ("dest", "nargs", "type", "choices", "default", "metavar")}
    group.add_argument(spelling, action=kind, now=action.option_strings[0], help=argparse.SUPPRESS, **about)


def notice(namespace: argparse.Namespace, former: str, now: str) -> None:
    """Say once in a call, and in one of several processes, that `former` is written `now`."""
    said = getattr(namespace, "former_spellings", ())
    if former not in said and os.environ.get("RANK", "0") == "0":
        print(f"vidseg: {former} is now written {now}", file=sys.stderr)
    namespace.former_spellings = (*said, former)


class _Stored(argparse.Action):
    def __init__(self, *args, now: str, **about):
        super().__init__(*args, **about)
        self._now = now

    def __call__(self, parser, namespace, values, option_string=None):
        notice(namespace, option_string, self._now)
        vars(namespace)[self.dest] = values


class _Appended(_Stored):
    def __call__(self, parser, namespace, values, option_string=None):
        super().__call__(parser, namespace, [*(getattr(namespace, self.dest) or ()), values], option_string)
