"""The registry of weight files at the command line: what there is, is it intact, fetch it, convert it, look into it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg_core.cli.former import add_former
from vidseg_core.errors import CheckpointError

if TYPE_CHECKING:
    from vidseg_core.frame import Frame
    from vidseg_core.models.accuracy import Accuracy

EXPORT_PICTURES = 3
# Pictures on which rounded networks are compared with float32.
COMPARED = 8
HELP = "list, verify, fetch, convert, calibrate, export and inspect weight files"
EXAMPLES = """\
examples:
  vidseg weights                                 what there is, and where
  vidseg weights get cityscapes-swnet-seq        fetch it, check it, keep it
  vidseg weights verify                          checksums of everything that is here
  vidseg weights show best.safetensors           which network, which classes, how trained
  vidseg weights inspect mine.onnx --image street.png --out look
                                                 what is known of it; an overlay, and a card to edit, in look/
  vidseg weights convert public.pth.tar our.safetensors --classes cityscapes
  vidseg weights calibrate best.safetensors fast.safetensors --data camvid:CamVid street:seed=3,frames=100
                                                 what 8 bit integers need to know: twice as fast where the CPU has them
  vidseg weights calibrate mine.onnx mine.ranges.json --data drive.mp4
                                                 the same for an ONNX file; it stays beside it
  vidseg weights calibrate mine.onnx mine.accuracy.json --ladder drive.mp4
                                                 what the node's governor has to know of it, by its own labels
  vidseg weights export camvid-swiftnet-lite0 street.onnx --size 480x640
                                                 for other runtimes; --nav2 for Nav2's segmentation node

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
    out = get.add_argument("--out", metavar="DIR", type=Path, help="keep them here instead")
    add_former(get, "weights get", out)

    convert = action("convert", convert_weights, "write a file of any known layout as one of ours (safetensors)")
    convert.add_argument("source", metavar="SRC", help="a file, or a registered name")
    convert.add_argument("target", metavar="DST", type=Path, help="a file name that ends in .safetensors")
    calibrate = action(
        "calibrate",
        calibrate_weights,
        "have a segmentation network look at pictures, and write a file that tells which values its convolutions meet "
        "(--data): so they can be computed in 8 bit integers (runtime auto or openvino_int8); or at a drive, and write "
        "what accuracy the node's governor may expect of it (--ladder)",
    )
    calibrate.add_argument("source", metavar="SRC", help="a file, or a registered name")
    calibrate.add_argument(
        "target",
        metavar="DST",
        type=Path,
        help="a file name that ends in .safetensors; for networks of others, beside them, NAME.ranges.json or, with "
        "--ladder alone, NAME.accuracy.json",
    )
    calibrate.add_argument(
        "--data", nargs="+", metavar="SOURCE", help="data sets (camvid:DIR[:SPLIT], ...; SPLIT is "
        "train unless said), folders of images, videos, recordings, street:...; what the network will see, the more "
        "varied the better, but no test data",
    )  # fmt: skip
    calibrate.add_argument(
        "--count", type=positive, default=64, metavar="N", help="pictures of each, evenly spread (default: %(default)s)"
    )
    calibrate.add_argument(
        "--ladder", metavar="DRIVE", help="consecutive frames, as --data without data sets' splits; at most 300 are "
        "taken. Each size of the network's input, age of labels and grid stride is scored against the network's own "
        "labels of every frame at full size",
    )  # fmt: skip
    calibrate.add_argument(
        "--update-weights", metavar="NAME|PATH", help="with --ladder: measure also what labels lose by age with this "
        "update network; name it as the node's update_weights will",
    )  # fmt: skip
    input_scale = calibrate.add_argument(
        "--input-scale", type=scale, metavar="S", help="size of the network's input in units of the picture's, 0.25 to "
        "2 (default: as many rows as it was trained at, or the scale it was trained at, or 1)",
    )  # fmt: skip
    add_former(calibrate, "weights calibrate", input_scale)
    for writing in (convert, calibrate):
        writing.add_argument(
            "--classes", metavar="TABLE", help="class table to put in: a name or a YAML file (default: as registered)"
        )

    text = "write a segmentation network as an ONNX file of one size, checked with ONNX Runtime"
    exporting = action("export", export_weights, text)
    exporting.add_argument("source", metavar="SRC", help="a file, or a registered name")
    exporting.add_argument("target", metavar="DST", type=Path, help="a file name that ends in .onnx")
    exporting.add_argument(
        "--size", type=height_width, default=(512, 1024), metavar="HxW",
        help="of its input and of the pictures that it is given, multiples of 32 (default: 512x1024)",
    )  # fmt: skip
    exporting.add_argument("--classes", metavar="TABLE", help="class table, where the file does not tell")
    exporting.add_argument(
        "--nav2", action="store_true",
        help="put a class 0, background, before the others, and the list of classes beside it, for Nav2's node",
    )  # fmt: skip

    from vidseg_core.cli.weights_inspect import add_arguments as add_inspect_arguments
    from vidseg_core.cli.weights_inspect import inspect_weights

    text = "say what a network is and what is assumed of it, an .onnx file's included, and have it label a picture"
    add_inspect_arguments(action("inspect", inspect_weights, text))

    show = action("show", show_weights, "say what a file holds")
    show.add_argument("file", metavar="FILE", help="a file, or a registered name")
    add_json(show)


def main(args: argparse.Namespace) -> int:
    from vidseg_core.models.registry import load_registry

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
    from vidseg_core.models.registry import find_record, find_weights

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

    from vidseg_core.models.download import download
    from vidseg_core.models.registry import download_directory, find_record

    for record in [find_record(name, records) for name in args.names]:
        present = record.locate() if args.out is None else args.out / record.file
        if present is not None and present.is_file():
            record.verify(present)
            print(f"{record.name}: {present}: already here, intact")
            continue
        with tqdm(desc=record.file, unit="B", unit_scale=True, leave=False) as bar:

            def progress(done: int, total: int | None, bar=bar):
                bar.total = total
                bar.update(done - bar.n)

            path = download(record, download_directory() if args.out is None else args.out, progress)
        print(f"{record.name}: {path} ({size_of(path)}; licence: {record.licence}) {record.note}".rstrip())
    return 0


def convert_weights(args, records) -> int:
    from vidseg_core.models.registry import find_weights

    return write_weights(args, records, find_weights(args.source, records), {})


def calibrate_weights(args, records) -> int:
    import torch

    from vidseg_core.backends.integers import measured
    from vidseg_core.engine.segmenter import NetworkSegmenter, input_scale, ready
    from vidseg_core.errors import ConfigError
    from vidseg_core.models.architectures import SEGMENTER
    from vidseg_core.models.open import open_model
    from vidseg_core.networks.graph import Foreign

    if args.data is None and args.ladder is None:
        raise ConfigError("weights calibrate: expected --data or --ladder, or both, got neither")
    if args.update_weights is not None and args.ladder is None:
        raise ConfigError("--update-weights: expected --ladder, which measures what it brings, got none")
    model, device = open_model(args.source, SEGMENTER, records), torch.device("cpu")
    scale = input_scale(model.card.input, args.input_scale)
    if isinstance(model.networks[SEGMENTER], Foreign):
        return calibrate_foreign(args, model, scale)
    check_target(args.target)
    known: dict[str, Any] = {}
    if args.data is not None:
        network = ready(model.torch_network(SEGMENTER), device)
        segment = NetworkSegmenter(network, scale, device, input=model.card.input)
        with torch.inference_mode(), measured(network) as ranges:
            count = 0
            for picture in chosen_pictures(args):
                segment(picture)
                count += 1
        known |= {"activation_ranges": ranges, "calibration": {"pictures": count, "input_scale": scale}}
        print(f"{len(ranges)} convolutions have seen {count} pictures")
    if args.ladder is not None:
        accuracy, about = measure_ladder(args, model, records)
        known |= {"accuracy": accuracy.to_dict(), "ladder": about}
    return write_weights(args, records, model.path, known)


def calibrate_foreign(args, model, scale) -> int:
    """Measure a network of others; what was found stays beside it."""
    from vidseg_core.errors import ConfigError
    from vidseg_core.models.architectures import SEGMENTER
    from vidseg_core.models.sidecars import accuracy_path, ranges_path, write_accuracy
    from vidseg_core.networks.graph import Graph

    place = accuracy_path(model.path) if args.data is None else ranges_path(model.path)
    if args.target != place:
        raise ConfigError(f"{args.target}: expected {place}, beside the network that it is for")
    if args.data is not None:
        if not isinstance(model.networks[SEGMENTER], Graph):
            model.torch_network(SEGMENTER)  # raises
        calibrate_graph(args, model, scale, place)
    if args.ladder is not None:
        accuracy, about = measure_ladder(args, model, None)
        write_accuracy(accuracy_path(model.path), model.card.checksum, accuracy, about)
        print(f"{accuracy_path(model.path)}: measured on {about['frames']} frames")
    return 0


def measure_ladder(args, model, records) -> tuple[Accuracy, dict[str, Any]]:
    """Measure by `--ladder` what to expect of a network, print it and return it, with how it was measured."""
    from vidseg_core.cli.ladder import as_yaml, measure_own
    from vidseg_core.engine.config import EngineConfig
    from vidseg_core.models.registry import record_of

    record = None if records is None else record_of(model.path, records)
    classes = args.classes or (None if record is None else record.classes)
    config = EngineConfig(
        weights=str(model.path), classes=classes, input_scale=args.input_scale, update_weights=args.update_weights
    )
    accuracy, about = measure_own(config, args.ladder)
    print(as_yaml(accuracy), end="")
    return accuracy, about


def chosen_pictures(args) -> Iterable[Frame]:
    """Yield `--count` frames of each of `--data`, with a progress bar."""
    from tqdm import tqdm

    chosen = [(frames, evenly(count, args.count)) for count, frames in map(open_pictures, args.data)]
    with tqdm(total=sum(len(wanted) for _, wanted in chosen), unit="picture", leave=False) as bar:
        for frames, wanted in chosen:
            for index, frame in enumerate(frames):
                if index in wanted:
                    yield frame
                    bar.update()


def calibrate_graph(args, model, scale, target: Path) -> None:
    """Measure an ONNX file's convolutions; write what they meet beside it, and say what rounding costs."""
    import numpy as np
    import torch

    from vidseg_core.backends.choose import load_backend
    from vidseg_core.backends.openvino import Measuring
    from vidseg_core.engine.segmenter import NetworkSegmenter
    from vidseg_core.errors import ConfigError
    from vidseg_core.kernels.decode import decode
    from vidseg_core.models.architectures import SEGMENTER
    from vidseg_core.models.sidecars import write_ranges
    from vidseg_core.threads import available_threads

    graph, device, threads = model.networks[SEGMENTER], torch.device("cpu"), available_threads()

    def segmenter(execute):
        return NetworkSegmenter(graph, scale, device, execute, model.card.input, model.card.output)

    measuring = Measuring(graph, threads)
    segment, kept, count = segmenter(measuring), [], 0
    for frame in chosen_pictures(args):
        scores = segment(frame)
        if len(kept) < COMPARED:
            kept.append((frame, decode(scores, frame.size, segment.half_pixel)))
        count += 1
    if not measuring.ranges:
        raise ConfigError(f"{model.path}: expected convolutions, it has none")
    agreement = {}
    for name in ("openvino", "openvino_int8"):
        compiled: dict[tuple, Any] = {}

        def execute(image, name=name, compiled=compiled):
            if tuple(image.shape) not in compiled:
                backend = load_backend(name)
                ranges = measuring.ranges if backend.needs_ranges else None
                compiled[tuple(image.shape)] = backend.compile(graph, (image,), ranges, threads)
            return compiled[tuple(image.shape)](image)

        other = segmenter(execute)
        shares = [np.mean(decode(other(frame), frame.size, other.half_pixel) == labels) for frame, labels in kept]
        agreement[next(iter(compiled.values())).runtime] = float(np.mean(shares))
    write_ranges(
        target, model.card.checksum, measuring.ranges,
        {"calibration": {"pictures": count, "input_scale": scale}, "agreement_with_float32": agreement},
    )  # fmt: skip
    print(f"{target}: {len(measuring.ranges)} convolutions have seen {count} pictures")
    for name, share in agreement.items():
        print(f"  {name}: labels agree with float32's on {100 * share:.2f} % of pixels of {len(kept)} pictures")


def export_weights(args, records) -> int:
    from vidseg_core.classes import load_classes
    from vidseg_core.errors import CheckpointError
    from vidseg_core.models.architectures import SEGMENTER
    from vidseg_core.models.onnx_export import export
    from vidseg_core.models.open import open_model
    from vidseg_core.street import Street, StreetConfig

    model = open_model(args.source, SEGMENTER, records)
    table = load_classes(args.classes) if args.classes else model.card.classes
    if table is None:
        raise CheckpointError(f"{model.path}: does not tell its classes; name a class table (--classes)")
    model.check_classes(table)
    height, width = args.size
    # Streets of another size are rendered and enlarged: the size may be below what a street can have.
    pictures = (resized(Street(StreetConfig(seed)).render(0).image, (width, height)) for seed in range(EXPORT_PICTURES))
    made = export(model, args.target, (height, width), pictures, classes=table, background=args.nav2)
    print(
        f"{made.path}: {len(made.classes)} classes at {width} x {height} ({size_of(made.path)}); labels of ONNX "
        f"Runtime and PyTorch agree on {100 * made.agreement:.3f} % of pixels of {EXPORT_PICTURES} pictures"
    )
    if made.ontology:
        print(f"{made.ontology}: its classes for Nav2's node")
    return 0


def resized(image, size: tuple[int, int]):
    """Return an image at (width, height)."""
    import cv2

    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def height_width(text: str) -> tuple[int, int]:
    """Parse `HxW`."""
    height, x, width = text.partition("x")
    if not (x and height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, got {text!r}")
    return int(height), int(width)


def open_pictures(text: str) -> tuple[int, Iterable[Frame]]:
    """Open what `--data` names: how many pictures there are, and the pictures."""
    from vidseg_core.data.datasets import DataName, open_frames
    from vidseg_core.data.open import open_source

    if not DataName.is_one(text):
        source = open_source(text)
        return len(source), source
    sequences = open_frames(DataName.parse(text), split="train").sequences
    return sum(map(len, sequences)), (one.read(position) for one in sequences for position in range(len(one)))


def evenly(length: int, count: int) -> set[int]:
    """At most `count` of the indices below `length`, as far from each other as can be."""
    count = min(length, count)
    return {index * length // count for index in range(count)}


def check_target(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: expected a file name that ends in .safetensors")


def write_weights(args, records, source: Path, known: dict) -> int:
    """Write `args.target`, one of our own files, from `source` and what else is known about it."""
    from vidseg_core.classes import load_classes
    from vidseg_core.models.checkpoint import convert
    from vidseg_core.models.registry import record_of

    check_target(args.target)
    table, record = args.classes, record_of(source, records)
    if record is not None:  # the new file is not registered: what the record says has to stand in it
        table = table or record.classes
        names = ("input_rows", "enlarge", "activation_ranges", "accuracy")
        known = {name: value for name in names if (value := getattr(record, name)) is not None} | known
    architecture = convert(source, args.target, None if table is None else load_classes(table), known)
    print(f"{args.target}: {architecture}, classes: {table or 'as in the source'} ({size_of(args.target)})")
    return 0


def show_weights(args, records) -> int:
    from vidseg_core.models.architectures import identify
    from vidseg_core.models.files import read_file
    from vidseg_core.models.registry import find_weights, record_with

    path = find_weights(args.file, records)
    file = read_file(path)
    architecture, record, metadata = identify(file.tensors), record_with(file.checksums, records), file.metadata
    found = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": file.checksums["sha256"],
        "architecture": architecture.name if architecture else None,
        "tensors": len(file.tensors),
        "values": sum(tensor.numel() for tensor in file.tensors.values()),
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


def positive(text: str) -> int:
    """An argument that is a number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def scale(text: str) -> float:
    """An argument that is a factor as in `EngineConfig.input_scale`."""
    value = float(text)
    if not 0.25 <= value <= 2:
        raise argparse.ArgumentTypeError(f"expected 0.25 to 2, got {value:g}")
    return value


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
