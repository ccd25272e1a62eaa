"""The check of a `.pt2` archive before it is loaded: nothing in it may be, or become, code of its author's.

`torch.export.load` unpickles some entries, evaluates expressions of sizes and looks up operations by their names. So
an archive is loaded only where all of its entries, names, expressions and operations are of the kinds known here.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from vidseg_core.errors import CheckpointError

_ENTRIES = re.compile(
    r"archive_(format|version)|version|byteorder|\.data/\w+|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"  # loaded as tensors alone (`weights_only`)
)
_OPERATIONS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    r"|torch\.sym_(int|float|max|min|not|ite|sum|sqrt)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt|pow)"
)
_IN_EXPRESSIONS = re.compile(
    r"[su]\d+|Symbol|Integer|Float|Rational|Mul|Add|Pow|Mod|Max|Min|FloorDiv|CeilDiv|PythonMod|CleanDiv|IntTrueDiv"
    r"|CeilToInt|FloorToInt|TruncToInt|RoundToInt|ToFloat|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|LessThan|StrictLessThan"
    r"|GreaterThan|StrictGreaterThan|And|Or|Not|positive|nonnegative|integer|precision|True|False|oo|int_oo"
)
_WORDS = re.compile(r"[^\W\d]\w*")
_FREE = ("stack_trace", "nn_module_stack", "torch_fn", "as_string", "torch_version")
_SPECS = re.compile(r'[\w\s\[\]{}",:.\\\-]*')
_NAME = re.compile(r"[\w.\-]*")


def checked_archive(path: Path) -> bytes:
    """Read an archive of an exported program that is safe to load.

    Raises:
        CheckpointError: truncated, of another kind, or with pickled code, operations or expressions that are not known.
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if broken := archive.testzip():
                raise CheckpointError(f"{path}: expected an exported program; {broken} in it is damaged")
            entries = {name.partition("/")[2]: name for name in archive.namelist()}
            if "models/model.json" not in entries:
                raise CheckpointError(
                    f"{path}: expected a program of `torch.export.save`, found an archive without models/model.json"
                )
            for entry in entries:
                _check_entry(path, entry)
            for entry in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
                if entry in entries:
                    _check_payloads(path, json.loads(archive.read(entries[entry])))
            _check_strings(path, "", json.loads(archive.read(entries["models/model.json"])))
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, ValueError, RecursionError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: expected a program of `torch.export.save`; it is truncated or of another kind ({error})"
        ) from error
    return content


def _check_entry(path: Path, entry: str) -> None:
    if _ENTRIES.fullmatch(entry):
        return
    if "aotinductor" in entry:
        raise CheckpointError(f"{path}: holds compiled code ({entry}), which is not run")
    raise CheckpointError(f"{path}: holds pickled code or what may be ({entry}), and is not read")


def _check_payloads(path: Path, config: dict[str, Any]) -> None:
    for name, payload in config["config"].items():
        if payload.get("use_pickle"):
            raise CheckpointError(f"{path}: holds pickled code ({name}), and is not read")


def _check_strings(path: Path, key: str, value: Any) -> None:
    if isinstance(value, dict):
        for name, one in value.items():
            _check_string(path, "expr_str" if key == "range_constraints" else "key", name)
            _check_strings(path, "free" if key in _FREE or name in _FREE else name, one)
    elif isinstance(value, list):
        for one in value:
            _check_strings(path, key, one)
    elif isinstance(value, str):
        _check_string(path, key, value)


def _check_string(path: Path, key: str, text: str) -> None:
    if key == "free":
        return
    if key == "target":
        good, what = bool(_OPERATIONS.fullmatch(text)), "an operation of PyTorch's own"
    elif key == "expr_str":
        words = _WORDS.findall(text)
        plain = re.fullmatch(r"[\w\s(),=<>*+/\-'.]*", text) and not re.search(r"\.\s*[^\W\d]|__", text)
        good = bool(plain) and all(_IN_EXPRESSIONS.fullmatch(word) for word in words)
        what = "an expression of sizes"
    elif key in ("in_spec", "out_spec"):
        good, what = bool(_SPECS.fullmatch(text)), "a description of inputs or outputs"
    elif key == "guards_code":
        return  # never compiled, see `exported.load`
    else:
        good, what = bool(_NAME.fullmatch(text)), f"a name ({key})"
    if not good:
        raise CheckpointError(f"{path}: expected {what} in models/model.json, found {text[:80]!r}; it is not loaded")
