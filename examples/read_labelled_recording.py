"""Read the images of a recording with the labels that belong to them.

vidseg bag make street:seed=0,frames=30 --out drive
python examples/read_labelled_recording.py drive /camera/image_raw /camera/labels_truth
"""

import sys

import numpy as np

from vidseg_core import load_classes, open_source


def main(recording: str, topic: str, labels: str) -> None:
    classes = load_classes("camvid")
    for frame in open_source(recording, topic=topic, labels=labels, classes=classes):
        if frame.labels is not None:
            ids, counts = np.unique(frame.labels, return_counts=True)
            most = int(ids[counts.argmax()])
            name = classes.names[most] if most < len(classes) else "void"
            print(f"{frame.stamp_ns}: {frame.size[1]} x {frame.size[0]}, mostly {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
