"""Executors of networks, one file each behind one protocol (`backend.py`); `choose.py` decides between them.

To add one: write a class that fulfils `Backend` and name it in `BACKENDS`. Importing this package needs no PyTorch.
"""

import sys

# `import openvino` would start a process that reports its use over the network. It does without where this is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Name of a backend -> module in this package and class. Loaded when somebody chooses it.
BACKENDS = {
    "eager": ("torch_eager", "Eager"),
    "openvino": ("openvino", "OpenVINO"),
    "openvino_int8": ("openvino", "OpenVINOIntegers"),
    "onnxruntime": ("onnx_runtime", "OnnxRuntime"),
    "onnxruntime_cuda": ("onnx_cuda", "OnnxRuntimeCuda"),
    "onnxruntime_tensorrt": ("onnx_cuda", "OnnxRuntimeTensorRT"),
    "eager bf16": ("torch_eager", "EagerBFloat16"),
    "cuda_half": ("cuda", "CudaHalf"),
    "cuda_half_graph": ("cuda", "CudaHalfGraph"),
}
# Backends that are no choice of a user's: `auto` alone takes them.
AUTO_ONLY = ("eager bf16", "onnxruntime_cuda", "onnxruntime_tensorrt")
# The values of `EngineConfig.runtime`.
RUNTIMES = ("auto", *(name for name in BACKENDS if name not in AUTO_ONLY))
