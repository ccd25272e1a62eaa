"""The registry of weight files at the command line: what there is, is it intact, fetch it, convert it, look into it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vidseg_core.errors import CheckpointError

HELP = "list, verify, fetch, convert and inspect weight files"
EXAMPLES = """\
examples:
  vidseg weights                                 what there is, and where
  vidseg weights get cityscapes-swnet-seq        fetch it, check it, keep it
  vidseg weights verify                          checksums of everything that is here
  vidseg weights show best.safetensors           which network, which classes, how trained
  vidseg weights convert public.pth.tar our.safetensors --classes cityscapes

Files are looked for in the package's weights/, in $VIDSEG_WEIGHTS and in ~/.cache/vidseg/weights;
`get` writes to $VIDSEG_WEIGHTS, or else to ~/.cache/vidseg/weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options; without an action the registry is listed."""
    common = argparse.ArgumentParser(add_help=False)
    # Suppressed defaults: an action's own would overwrite what was given before its name.
    for target, default in ((parser, None), (common, argparse.SUPPRESS)):
        target.add_argument("--registry", metavar="FILE", default=default, help="another registry than the package's")
    parser.set_defaults(action=list_weights, json=False)
    parser.add_argument("--json", action="store_true", help="print the list as JSON")

    actions = parser.add_subparsers(metavar="ACTION", title="actions")

    def action(name: str, main, text: str) -> argparse.ArgumentParser:
        subparser = actions.add_parser(name, parents=[common], help=text, description=text)
        subparser.set_defaults(action=main)
        return subparser

    def add_json(subparser: argparse.ArgumentParser) -> None:
        subparser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")

    add_json(action("list", list_weights, "list the registry and say which files are here (as without an action)"))

    verify = action("verify", verify_weights, "compare files with their registered checksums")
    verify.add_argument("names", nargs="*", metavar="NAME", help="registered names (default: all that are here)")

    get = action("get", get_weights, "fetch files and check them")
    get.add_argument("names", nargs="+", metavar="NAME", help="registered names")
    get.add_argument("--to", metavar="DIR", type=Path, help="keep them here instead")

    convert = action("convert", convert_weights, "write a file of any known layout as one of ours (safetensors)")
    convert.add_argument("source", metavar="SRC", help="a file, or a registered name")
    convert.add_argument("target", metavar="DST", type=Path, help="a file name that ends in .safetensors")
    convert.add_argument(
        "--classes", metavar="TABLE", help="class table to put into it: a name or a YAML file (default: as registered)"
    )

    show = action("show", show_weights, "say what a file holds")
    show.add_argument("file", metavar="FILE", help="a file, or a registered name")
    add_json(show)


def main(args: argparse.Namespace) -> int:
    from vidseg_core.networks.registry import load_registry

    return args.action(args, load_registry(args.registry))


def list_weights(args, records) -> int:
    rows = []
    for record in records:
        path = record.locate()
        rows.append(
            {
                "name": record.name,
                "architecture": record.architecture,
                "classes": record.classes,
                "bytes": None if path is None else path.stat().st_size,
                "path": None if path is None else str(path),
                "licence": record.licence,
                "url": record.url,
                "checksum": record.checksum,
                "note": record.note,
            }
        )
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = [("NAME", "ARCHITECTURE", "CLASSES", "SIZE", "LICENCE", "WHERE")]
    for row in rows:
        absent = f"absent; vidseg weights get {row['name']}" if row["url"] else "absent; comes with the package"
        table.append(
            (
                row["name"],
                row["architecture"],
                row["classes"] or "-",
                "-" if row["path"] is None else size_of(Path(row["path"])),
                row["licence"],
                row["path"] or absent,
            )
        )
    print_table(table)
    return 0


def verify_weights(args, records) -> int:
    from vidseg_core.networks.registry import find_record, find_weights

    if args.names:
        chosen = [find_record(name, records) for name in args.names]
        files = [(record, find_weights(record.name, records)) for record in chosen]
    else:
        files = [(record, path) for record in records if (path := record.locate()) is not None]
    broken = []
    for record, path in files:
        mismatch = record.mismatch(path)
        print(f"{record.name}: {path}: {mismatch or 'intact'}")
        if mismatch:
            broken.append(str(path))
    if broken:
        raise CheckpointError(f"not as registered: {', '.join(broken)}")
    if not files:
        print("no registered weight file is on this machine")
    return 0


def get_weights(args, records) -> int:
    from tqdm import tqdm

    from vidseg_core.networks.registry import download, download_directory, find_record

    for record in [find_record(name, records) for name in args.names]:
        present = record.locate() if args.to is None else args.to / record.file
        if present is not None and present.is_file():
            record.verify(present)
            print(f"{record.name}: {present}: already here, intact")
            continue
        with tqdm(desc=record.file, unit="B", unit_scale=True, leave=False) as bar:

            def progress(done: int, total: int | None, bar=bar):
                bar.total = total
                bar.update(done - bar.n)

            path = download(record, download_directory() if args.to is None else args.to, progress)
        print(f"{record.name}: {path} ({size_of(path)}; licence: {record.licence}) {record.note}".rstrip())
    return 0


def convert_weights(args, records) -> int:
    from vidseg_core.classes import load_classes
    from vidseg_core.networks.checkpoint import convert
    from vidseg_core.networks.registry import find_weights, record_of

    if args.target.suffix != ".safetensors":
        raise CheckpointError(f"{args.target}: expected a file name that ends in .safetensors")
    source = find_weights(args.source, records)
    table = args.classes
    if table is None and (record := record_of(source, records)) is not None:
        table = record.classes
    architecture = convert(source, args.target, None if table is None else load_classes(table))
    print(f"{args.target}: {architecture}, classes: {table or 'as in the source'} ({size_of(args.target)})")
    return 0


def show_weights(args, records) -> int:
    from vidseg_core.networks.checkpoint import identify, read_metadata, read_tensors
    from vidseg_core.networks.registry import checksum, find_weights, record_of

    path = find_weights(args.file, records)
    tensors = read_tensors(path)
    record = record_of(path, records)
    metadata = read_metadata(path)
    found = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": checksum(path, "sha256"),
        "architecture": identify(tensors),
        "tensors": len(tensors),
        "values": sum(tensor.numel() for tensor in tensors.values()),
        "registered_as": record.name if record else None,
        "licence": record.licence if record else None,
        "metadata": metadata,
    }
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [(key, value) for key, value in found.items() if key != "metadata"]
    rows += [(key, value) for key, value in metadata.items() if key not in ("architecture", "classes")]
    table = metadata.get("classes")
    if table is None:
        rows.append(("classes", f"not in the file; registered: {record.classes if record else None}"))
    else:
        rows.append(("classes", f"{table['name']}: {', '.join(entry['name'] for entry in table['classes'])}"))
    print_table([(key, as_text(value)) for key, value in rows])
    return 0


def size_of(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def as_text(value) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest entry; the last one is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]))
