"""Label several cameras with one engine: networks are shared, each camera has a stream of its own.

python examples/stream_per_camera.py street:seed=0,frames=30 street:seed=1,frames=30
"""

import sys

from vidseg_core import EngineConfig, build_engine, open_source


def main(*sources: str) -> None:
    with build_engine(EngineConfig(interval=4)) as engine:
        # Other phases: key frames of different cameras do not fall due together.
        streams = [engine.stream(phase=number / len(sources)) for number in range(len(sources))]
        for frames in zip(*map(open_source, sources), strict=False):
            results = [stream.step(frame) for stream, frame in zip(streams, frames, strict=True)]
            print(" ".join("key" if result.is_key else f"+{result.age}" for result in results))


if __name__ == "__main__":
    main(*sys.argv[1:])
