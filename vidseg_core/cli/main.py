"""The command line: finds the subcommand, hands it its arguments, turns errors that a user can cause into one line."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from types import ModuleType

from vidseg_core import __version__
from vidseg_core.errors import VidsegError

# In the order in which `vidseg --help` lists them.
COMMANDS = {
    "run": "vidseg_core.cli.run",
    "evaluate": "vidseg_core.cli.evaluate",
    "infer": "vidseg_core.cli.infer",
    "replay": "vidseg_core.cli.replay",
    "fleet": "vidseg_core.cli.fleet",
    "bag": "vidseg_core.cli.bag",
    "bench": "vidseg_core.cli.bench",
    "figure": "vidseg_core.cli.figure",
    "train": "vidseg_core.cli.train",
    "weights": "vidseg_core.cli.weights",
    "compile": "vidseg_core.cli.compile",
}

DESCRIPTION = "Semantic labels for every frame of a camera stream, a video, a bag or a folder of images."
EXAMPLES = """\
examples:
  vidseg run street:seed=0,frames=300 --out labelled
      label ten seconds of a synthetic street: pictures, a video and a summary in labelled/
  vidseg run drive.mp4 --interval 2 --out labelled
      your own video; two frames between key frames
  vidseg evaluate --data camvid:CamVid
      how good labels are, by their distance from the key frame
  vidseg replay drive/ --out report
      evaluate on a recording: every frame in turn, and as it would have been live
  vidseg fleet replay drives/ --out scores
      evaluate on thousands of recordings, on this machine or a Ray cluster
  vidseg bag make frames/ --labels frames_annot/ --rate 15 --out drive
      a rosbag2 recording of images and their labels
  vidseg infer --data folder:drive:images --save-seq-res
      the same frames without ground truth: predictions and strips
  vidseg bench
      how fast it is on this computer
  vidseg train segmenter --data camvid:CamVid --out runs/camvid
      train the network for key frames
  vidseg figure --help
      draw the figures of the documentation
  vidseg weights
      what weights there are, what can be fetched, under which licence
  vidseg compile
      what the first start would compile, ahead of it

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
    """The parser for `argv`. Only the command that `argv` begins with, if any, has its options in it.

    A command's options may need slow imports, for their defaults for instance, and nobody asked for the others'.
    """
    parser = Parser(prog="vidseg", description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"vidseg {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name in COMMANDS:
        if not argv or argv[0] not in COMMANDS:
            subparsers.add_parser(name, help=command(name).HELP)
        elif name == argv[0]:
            module = command(name)
            subparser = subparsers.add_parser(name, description=module.HELP, epilog=getattr(module, "EXAMPLES", None))
            module.add_arguments(subparser)
            subparser.set_defaults(main=module.main)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 after an error of the user, 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(argv).parse_args(argv)
    logging.basicConfig(format="vidseg: %(message)s")
    logging.getLogger("vidseg_core").setLevel(logging.INFO)
    try:
        status = args.main(args)
        # Here, not at exit: a reader that closed the pipe is no error, but one at exit could not be caught.
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (VidsegError, OSError, MemoryError) as error:
        print(f"vidseg: error: {one_line(error) or 'out of memory'}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("vidseg: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def one_line(error: Exception) -> str:
    """An error's message without line breaks; an OSError's with the file it is about first, as ours name it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
