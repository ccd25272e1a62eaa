import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.install import install

PACKAGE = "vidseg_ros"
SHARE = f"share/{PACKAGE}"

# What labels images, videos and recordings needs; and what draws and logs figures.
LABEL = [
    "torch>=2.1",
    "opencv-python-headless",
    "numba",
    "safetensors",
    "openvino",
    "av",
    "lz4",
    "mcap",
    "zstandard",
    "tqdm",
]
PLOTS = ["matplotlib", "tensorboard"]


def shared_files():
    """(directory below the prefix, files) for everything that the package reads at run time."""
    yield "share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]
    yield SHARE, ["package.xml"]
    yield f"{SHARE}/weights", ["weights/registry.yaml", *map(str, sorted(Path("weights").glob("*.safetensors")))]
    for top in ("config", "launch"):
        files = sorted(path for path in Path(top).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        for directory in sorted({path.parent for path in files}):
            yield f"{SHARE}/{directory}", [str(path) for path in files if path.parent == directory]


class CompilingInstall(install):
    """Install, and compile kernels and the default network for this computer: `colcon build` comes here.

    A wheel is built for any computer and gets nothing compiled. VIDSEG_COMPILE=0 leaves the step out, where what is
    built runs elsewhere.
    """

    def run(self):
        super().run()
        needed = ("torch", "numba", "cv2", "safetensors", "openvino")
        if self.root is not None or os.environ.get("VIDSEG_COMPILE") == "0" or not all(map(find_spec, needed)):
            return
        paths = os.pathsep.join(filter(None, (self.install_lib, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "vidseg_core.cli", "compile"]
        done = subprocess.run(command, cwd=self.install_lib, env={**os.environ, "PYTHONPATH": paths}, check=False)
        if done.returncode:
            print("vidseg compile failed: the first start compiles instead", file=sys.stderr)


setup(
    cmdclass={"install": CompilingInstall},
    name=PACKAGE,
    version="0.2.0",
    description="Video semantic segmentation at camera rate: a network on key frames, optical flow between them",
    author="vidseg maintainers",
    maintainer="vidseg maintainers",
    maintainer_email="maintainers@vidseg.dev",
    license="Apache-2.0",
    packages=find_packages(include=["vidseg_core", "vidseg_core.*", "vidseg_ros", "vidseg_ros.*"]),
    package_data={"vidseg_core": ["py.typed", "*.pyi"], "vidseg_ros": ["py.typed"]},
    data_files=list(shared_files()),
    zip_safe=False,
    python_requires=">=3.10",
    # Only what a ROS distribution's own packages satisfy under these names: an executable of a colcon workspace refuses
    # to start where one is missing, and python3-opencv is no distribution called opencv-python-headless.
    install_requires=["numpy", "PyYAML"],
    extras_require={
        "label": LABEL,
        "evaluate": [*LABEL, *PLOTS],
        "train": [*LABEL, *PLOTS],
        "ros": [
            "ros-rclpy[fastrtps]",
            "ros-sensor-msgs",
            "ros-std-msgs",
            "ros-std-srvs",
            "ros-diagnostic-msgs",
            "ros-geometry-msgs",
        ],
        "onnx": ["onnx", "onnxruntime"],
        # All machines of a cluster must have the same version of Ray.
        "fleet": [*LABEL, "matplotlib", "ray==2.60.0", "pyarrow"],
        "hf": ["transformers>=4.56", "pillow"],
        "dev": ["pytest", "ruff", "mypy", "scikit-learn", "rosbags", "colcon-common-extensions", "setuptools<80"],
        # `colcon test` looks for this name to decide that pytest runs the tests.
        "test": ["pytest"],
        # The name of 0.1.0 for what `label` and the plots need.
        "cpu": [*LABEL, "matplotlib"],
    },
    entry_points={
        "console_scripts": [
            "vidseg = vidseg_core.cli.main:main",
            "vidseg_node = vidseg_ros.programs:vidseg_node",
            "camera_player = vidseg_ros.programs:camera_player",
            "demo = vidseg_ros.programs:demo",
            "score = vidseg_ros.programs:score",
        ]
    },
)
