import os
import subprocess
import sys
from importlib import import_module

import pytest

import vidseg_core
from vidseg_core.cli import main as cli
from vidseg_core.errors import ConfigError


@pytest.fixture
def command(monkeypatch):
    """Puts a command named `try` at the command line, which does what the given function does."""

    def put(main):
        class Module:
            HELP = "does what the test wants"

            @staticmethod
            def add_arguments(parser):
                parser.add_argument("--count", type=int, default=1)

        Module.main = staticmethod(main)
        monkeypatch.setitem(cli.COMMANDS, "try", "test_cli_try")
        monkeypatch.setitem(sys.modules, "test_cli_try", Module)

    return put


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_the_status_is_what_the_command_returns(command):
    command(lambda args: args.count)
    assert cli.main(["try", "--count", "3"]) == 3
    command(lambda args: None)
    assert cli.main(["try"]) == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("interval:\n  expected 1 or more, got 0"), "vidseg: error: interval: expected 1 or more, got 0\n"),
        (FileNotFoundError(2, "No such file", "a.png"), "vidseg: error: a.png: No such file\n"),
        (OSError("no space left"), "vidseg: error: no space left\n"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_status_2(command, capsys, error, line):
    def fail(args):
        raise error

    command(fail)
    assert cli.main(["try"]) == 2
    assert capsys.readouterr().err == line


def test_an_error_of_ours_keeps_its_traceback(command):
    def fail(args):
        raise ValueError("not the user's")

    command(fail)
    with pytest.raises(ValueError, match="not the user's"):
        cli.main(["try"])


def test_an_interrupt_is_status_130(command, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    command(interrupt)
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == "vidseg: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND (`vidseg --help` explains)"),
        (["nosuch"], "invalid choice: 'nosuch'"),
        (["try", "--count", "many"], "argument --count: invalid int value: 'many' (`vidseg try --help` explains)"),
        (["try", "--cou", "1"], "unrecognized arguments: --cou 1"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(command, capsys, arguments, message):
    command(lambda args: 0)
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2
    assert len(lines) == 1 and lines[0].startswith("vidseg: error: ") and message in lines[0]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    module = import_module(cli.COMMANDS[name])
    assert module.HELP and "\n" not in module.HELP
    with pytest.raises(SystemExit) as exit:
        cli.main([name, "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: vidseg {name}")


def test_help_lists_every_command_with_examples(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    for name in cli.COMMANDS:
        assert f"\n    {name} " in text and f"vidseg {name}" in text


def test_help_and_version_load_nothing_heavy():
    script = """
import sys
from vidseg_core.cli import main as cli
try:
    cli.main([{!r}])
finally:
    print(*sys.modules, file=sys.stderr)
"""
    for option in ("--help", "--version"):
        finished = python("-c", script.format(option))
        assert finished.returncode == 0
        heavy = {"torch", "cv2", "numba", "numpy", "rosbags", "av", "matplotlib", "openvino"}
        assert heavy & set(finished.stderr.split()) == set(), option


def test_it_runs_as_a_module():
    finished = python("-m", "vidseg_core.cli", "--version")
    assert finished.returncode == 0 and finished.stdout == f"vidseg {vidseg_core.__version__}\n"


def test_a_reader_that_closes_the_pipe_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [sys.executable, "-m", "vidseg_core.cli", "weights"]
        finished = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=120)
    assert finished.returncode == 0 and finished.stderr == b""
