"""Label a video, a folder of images, a recording or the synthetic street, and write overlays as PNG.

python examples/label_video.py drive.mp4 labelled
python examples/label_video.py street:seed=0,frames=30 labelled
"""

import sys
from pathlib import Path

import cv2

from vidseg_core import EngineConfig, build_engine, open_source
from vidseg_core.overlay import overlay


def main(source: str, folder: str) -> None:
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with build_engine(EngineConfig(interval=4)) as engine:
        stream = engine.stream()
        for number, frame in enumerate(open_source(source)):
            result = stream.step(frame)  # result.labels: H x W, uint8, 255 = void
            picture = overlay(frame.image, result.labels, engine.classes.lut)
            cv2.imwrite(str(out / f"{number:06d}.png"), picture[..., ::-1])
            print(f"frame {number}: {'key frame' if result.is_key else f'{result.age} frames after one'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
