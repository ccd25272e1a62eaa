"""The registry of weight files at the command line: what there is, is it intact, fetch it, convert it, look into it."""

HELP = "list, fetch, verify, convert and inspect weight files"


def add_arguments(parser):
    pass


def main(args):
    return 0
