"""`vidseg bag make`: a rosbag2 recording from images and their labels."""

from __future__ import annotations

import argparse

HELP = "make a rosbag2 recording of images and labels"
EXAMPLES = """\
examples:
  vidseg bag make CamVid/val --labels CamVid/valannot --rate 15 --out clip
      /camera/image_raw (rgb8) and /camera/labels_truth (mono8, class ids, 255 = void), SQLite storage
  vidseg bag make drive.mp4 --storage mcap --out drive
  vidseg bag make street:seed=0,frames=300 --out street

`vidseg replay` evaluates on it; `ros2 bag play` and `camera_player` play it.
"""

FIRST_STAMP_NS = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True, dest="action")
    make = actions.add_parser("make", help=HELP, description=HELP, epilog=EXAMPLES)
    make.add_argument(
        "source",
        metavar="IMAGES",
        help="folder, video file, recording, street:key=value,...; camvid:DIR[:SPLIT], folder:DIR[:SPLIT] with labels",
    )
    make.add_argument("--out", required=True, metavar="BAG", help="folder to make; it must not exist")
    make.add_argument(
        "--labels", metavar="DIR|TOPIC", help="ground truth: PNG files with the images' names; a recording's topic"
    )
    make.add_argument("--classes", metavar="NAME|PATH", default="camvid", help="of those labels (default: camvid)")
    make.add_argument("--rate", type=float, metavar="HZ", help="of a folder (default: 30); replaces a video's stamps")
    make.add_argument("--storage", choices=("sqlite3", "mcap"), default="sqlite3", help="(default: sqlite3)")
    make.add_argument("--topic", metavar="T", help="of a recording with several image topics")
    make.add_argument("--skip-bad", action="store_true", help="leave out frames that cannot be read")
    make.add_argument("--frames", type=int, metavar="N", help="stop after so many")
    make.add_argument(
        "--namespace", metavar="NS", default="/camera", help="in front of image_raw, labels_truth (default: /camera)"
    )
    make.add_argument("--frame-id", default="camera", help="in the headers (default: camera)")


def main(args: argparse.Namespace) -> int:
    from itertools import islice

    from tqdm import tqdm

    from vidseg_core.classes import load_classes
    from vidseg_core.data.bag import TRUTH_TOPIC
    from vidseg_core.data.bag_writer import BagWriter
    from vidseg_core.data.datasets import DataName
    from vidseg_core.data.open import open_source
    from vidseg_core.errors import ConfigError

    if args.frames is not None and args.frames < 1:
        raise ConfigError(f"--frames: expected 1 or more, got {args.frames}")
    bag = BagWriter(args.out, args.storage)
    source = open_source(
        args.source,
        rate_hz=args.rate,
        topic=args.topic,
        skip_bad=args.skip_bad,
        labels=args.labels,
        classes=load_classes(args.classes) if args.labels is not None or DataName.is_one(args.source) else None,
    )
    namespace = "/" + args.namespace.strip("/") if args.namespace.strip("/") else ""
    image_topic, truth_topic = f"{namespace}/image_raw", f"{namespace}/{TRUTH_TOPIC}"
    total = min((n for n in (source.num_frames, args.frames) if n is not None), default=None)
    shift_ns, images, labelled = None, 0, 0
    with bag:
        for frame in tqdm(islice(source, args.frames), total=total, unit="frame"):
            if shift_ns is None:  # in ROS a stamp of zero is one that was never set
                shift_ns = FIRST_STAMP_NS if frame.stamp_ns < FIRST_STAMP_NS else 0
            times = {"stamp_ns": frame.stamp_ns + shift_ns, "recorded_ns": frame.received_ns}
            bag.write_image(image_topic, "rgb8", frame.image, frame_id=args.frame_id, **times)
            images += 1
            if frame.labels is not None:
                bag.write_image(truth_topic, "mono8", frame.labels, frame_id=args.frame_id, **times)
                labelled += 1
    skipped = f"; {len(source.skipped)} skipped" if source.skipped else ""
    print(f"{args.out}: {images} images on {image_topic}, {labelled} of them with labels on {truth_topic}{skipped}")
    return 0
