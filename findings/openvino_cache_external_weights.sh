#!/bin/sh
# openvino 2026.4.1, onnx 1.23.2: with CACHE_DIR, a compiled model is found again by the path and time of the .onnx file.
# Its weights may lie in a second file (.onnx.data, as torch.onnx writes them); new weights there are not noticed, and
# compile_model gives the network with the OLD weights, without a word. One would expect the content to decide, or the
# second file to count.
#
#   weights 1: output 3.0; weights 2, from the cache: 3.0; without the cache: 6.0
#
# Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q openvino==2026.4.1 onnx==1.23.2 numpy==2.2.6
cd "$work"
"$work/venv/bin/python" - <<'END'
import sys
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper


def write(name, factor):
    kernel = np.full((1, 3, 1, 1), factor, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])], "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4, 4])],
        [numpy_helper.from_array(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, name, save_as_external_data=True, location=f"{name}.data", size_threshold=0)


def output(cache):
    core = openvino.Core()
    if cache:
        core.set_property({"CACHE_DIR": "cache"})
    compiled = core.compile_model("net.onnx", "CPU")
    return float(compiled(np.ones((1, 3, 4, 4), np.float32))[0].max())


write("net.onnx", 1.0)
first = output(True)
write("other.onnx", 2.0)
with open("other.onnx.data", "rb") as new, open("net.onnx.data", "wb") as old:
    old.write(new.read())
cached, right = output(True), output(False)
print(f"weights 1: output {first}; weights 2, from the cache: {cached}; without the cache: {right}")
sys.exit(0 if (first, cached, right) == (3.0, 3.0, 6.0) else "changed: new weights are noticed")
END
