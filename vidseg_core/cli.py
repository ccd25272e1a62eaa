"""The command line: finds the subcommand, hands it its arguments, turns errors that a user can cause into one line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from types import ModuleType

from vidseg_core import __version__
from vidseg_core.errors import VidsegError

# In the order in which `vidseg --help` lists them.
COMMANDS = {
    "weights": "vidseg_core.commands.weights",
}

DESCRIPTION = "Semantic labels for every frame of a camera stream, a video, a bag or a folder of images."
EXAMPLES = """\
examples:
  vidseg weights
      list the networks' weights: what is here, what can be fetched, under which licence

`vidseg COMMAND --help` explains a command and its options.
"""

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Keeps the line breaks of examples, and says what is wrong in the one line that every error gets."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str):
        self.exit(EXIT_ERROR, f"vidseg: error: {message} (`{self.prog} --help` explains)\n")


def command(name: str) -> ModuleType:
    """The module of a subcommand: `HELP`, `add_arguments(parser)`, `main(args) -> int`, perhaps `EXAMPLES`."""
    return importlib.import_module(COMMANDS[name])


def build_parser(argv: list[str]) -> Parser:
    """The parser for `argv`. It imports the module of the command that `argv` names; all of them for the list."""
    parser = Parser(prog="vidseg", description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"vidseg {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    wanted = [argv[0]] if argv and argv[0] in COMMANDS else COMMANDS
    for name in wanted:
        module = command(name)
        subparser = subparsers.add_parser(
            name, help=module.HELP, description=module.HELP, epilog=getattr(module, "EXAMPLES", None)
        )
        module.add_arguments(subparser)
        subparser.set_defaults(main=module.main)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 after an error of the user, 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(argv).parse_args(argv)
    try:
        status = args.main(args)
        # Here, not at exit: a reader that closed the pipe is no error, but one at exit could not be caught.
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (VidsegError, OSError) as error:
        print(f"vidseg: error: {one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("vidseg: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def one_line(error: Exception) -> str:
    """An error's message without line breaks; an OSError's with the file it is about first, as ours name it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
