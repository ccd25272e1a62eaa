"""Segmentation networks in Hugging Face directories: `config.json`, `preprocessor_config.json`, `model.safetensors`.

They are loaded by `transformers` (extra `hf`), offline, and by its own classes alone: code in a directory is never run,
and pickled weights are not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vidseg_core.errors import CheckpointError
from vidseg_core.models.card_file import read_card_file
from vidseg_core.models.crops import Crops
from vidseg_core.models.study import ASSUMED_MULTIPLE, CLASSES_LINE, STATISTICS_LINE, Study
from vidseg_core.networks.graph import Imported

FORM = "a Hugging Face directory"
LOADER = f"{__name__}:load"
_QUERIES = ("masks_queries_logits", "class_queries_logits")
_SEMANTIC = "ForSemanticSegmentation"
_OF_QUERIES = (
    "MaskFormerForInstanceSegmentation", "Mask2FormerForUniversalSegmentation", "EomtForUniversalSegmentation",
)  # fmt: skip
# Their processors bring masks to this size before they make classes of them; EoMT's to its own square.
_MASK_SIZE = {"mask2former": (384, 384)}
# Of a network whose processor cuts pictures into squares, see `Crops`.
_OF_CROPS = ("scores",)
# Families that take sides of any length.
_ANY_SIDE = ("segformer", "mobilenet_v2", "mobilevit", "mobilevitv2", "upernet", "maskformer", "mask2former")
# Families that take squares of the size in their configuration only, as their positions are embedded.
_OWN_SQUARE = ("dpt", "eomt")
# By Pillow's number.
_RESIZES = {2: "bilinear", 3: "bicubic"}


def study(path: Path) -> Study:
    """Find out what the network of a directory is.

    Raises:
        CheckpointError: `transformers` is not installed; the directory is not complete, holds pickled weights or code
            of its own, is of a kind that is no semantic segmentation, or its weights do not fit its configuration.
        ClassTableError: the class table of the card beside it is malformed.
    """
    config = _config(path)
    found = Study(path, read_card_file(path))
    queries = config["architectures"][0] in _OF_QUERIES
    family = str(config.get("model_type"))
    _check_files(path)
    _input_facts(found, path, config)
    crops = queries and found.value("input.size_rule") == "shortest_edge" and family in _OWN_SQUARE
    if crops:
        found.learn("output.kind", "logits", "scores of its queries, averaged over squares as its processor cuts them")
    else:
        found.learn("output.kind", "queries" if queries else "logits", f"as {config['architectures'][0]} has it")
    found.learn("output.corners", "half_pixel", "as its family is upsampled")
    if queries and not crops:
        own = found.value("input.size") if family in _OWN_SQUARE else None
        found.learn("output.mask_size", _MASK_SIZE.get(family, own), "as its processor does")
    names = _names(config)
    if "input.mean" not in found.facts:
        if found.beside.classes is None and names is None:
            found.missing.append(CLASSES_LINE.format("its classes"))
        return found
    network = load(path, _OF_CROPS if crops else _QUERIES if queries else ("logits",))
    size = found.tried_size()
    trial = found.try_out(network, size)
    return found.finish(family, network, trial, size, "its output", names, "config.json")


def load(path: str | Path, outputs: Sequence[str], input_layout: str = "nchw") -> Imported:
    """Load the network of a directory.

    Args:
        outputs: names of the tensors that are taken.

    Raises:
        CheckpointError: see `study`.
    """
    path = Path(path)
    transformers, config = _transformers(path), _config(path)
    name = config["architectures"][0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise CheckpointError(
            f"{path}: {name} is not known to transformers {transformers.__version__}; code in a directory is not run"
        )
    quiet = transformers.utils.logging
    verbosity, bars = quiet.get_verbosity(), quiet.is_progress_bar_enabled()
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    try:
        made = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        # All its weights are in the directory; none of a backbone's are fetched.
        for one in (made, getattr(made, "backbone_config", None)):
            if one is not None and getattr(one, "use_pretrained_backbone", False):
                one.use_pretrained_backbone = False
        network, told = kind.from_pretrained(
            path, config=made, local_files_only=True, use_safetensors=True, output_loading_info=True,
            dtype=torch.float32, attn_implementation=_attention(kind), ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:  # whatever the library raises about what is in the directory
        raise CheckpointError(f"{path}: cannot be loaded: {_said(error)}") from error
    finally:
        quiet.set_verbosity(verbosity)
        if bars:
            quiet.enable_progress_bar()
    for key, stored, expected in told["mismatched_keys"]:  # as its classes are not as many as its configuration has
        raise CheckpointError(
            f"{path}: {key}: expected {list(expected)}, as config.json says ({made.num_labels} classes), found "
            f"{list(stored)} in its file"
        )
    if missing := sorted(told["missing_keys"]):
        raise CheckpointError(
            f"{path}: expected all weights of {name}, its file has none for {', '.join(missing[:3])} "
            f"({len(missing)} are missing)"
        )
    called: nn.Module = _Pictures(network)
    if tuple(outputs) == _OF_CROPS:
        called = Crops(called, int(config["image_size"]))
    return Imported(
        called, path, _checksum(path), outputs=tuple(outputs), loader=LOADER, form=FORM,
        input_layout=input_layout,
    )  # fmt: skip


class _Pictures(nn.Module):
    """A network of `transformers`, called with a picture alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> Any:
        return self.network(pixel_values=image, return_dict=True)


def _attention(kind: type) -> str:
    return "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"


def _transformers(path: Path) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading Hugging Face directories needs the package transformers ({error}): "
            "pip install 'vidseg_ros[hf]'"
        ) from error
    return transformers


def _config(path: Path) -> dict[str, Any]:
    """The configuration, of a network that segments pictures."""
    config = _json(path / "config.json")
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise CheckpointError(f"{path}: config.json: expected `architectures`, the name of a class, got {names!r}")
    if not names[0].endswith(_SEMANTIC) and names[0] not in _OF_QUERIES:
        raise CheckpointError(
            f"{path}: expected a semantic segmentation network (...{_SEMANTIC}, {', '.join(_OF_QUERIES)}), "
            f"found {names[0]}"
        )
    return config


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def _weight_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors"))


def _check_files(path: Path) -> None:
    files = _weight_files(path)
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: expected a safetensors file; it is truncated or of another kind ({error})"
            ) from error
    if files:
        return
    pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in sorted(path.glob(pattern))]
    if pickled:
        raise CheckpointError(
            f"{path}: expected model.safetensors, found {pickled[0]}, which holds pickled code and is not read; "
            "`save_pretrained(...)` of a present-day transformers writes model.safetensors"
        )
    raise CheckpointError(f"{path}: expected model.safetensors beside config.json, found none")


def _checksum(path: Path) -> str:
    checksum = hashlib.sha256()
    for file in (path / "config.json", *_weight_files(path)):
        checksum.update(file.name.encode())
        with file.open("rb") as content:
            while block := content.read(1 << 24):
                checksum.update(block)
    return checksum.hexdigest()


def _names(config: dict[str, Any]) -> list[str] | None:
    """Names of its classes; None where there are none but the numbers that the library makes up."""
    given = config.get("id2label")
    if not isinstance(given, dict) or not given:
        return None
    try:
        names = [str(given[key]) for key in sorted(given, key=int)]
    except ValueError:
        return None
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _input_facts(found: Study, path: Path, config: dict[str, Any]) -> None:
    family = str(config.get("model_type"))
    if not (path / "preprocessor_config.json").is_file():
        processor, file = None, ""
    else:
        processor, file = _processor(path), "preprocessor_config.json"

    def get(name: str, otherwise: Any = None) -> Any:
        return otherwise if processor is None else getattr(processor, name, otherwise)

    found.learn("input.layout", "nchw", "as its family takes it")
    bgr = bool(get("do_flip_channel_order"))
    found.learn("input.colours", "bgr" if bgr else "rgb", file or "as most families take it")
    if processor is not None:
        unit = float(get("rescale_factor", 1 / 255)) if get("do_rescale", True) else 1.0
        mean, std = (0.0,) * 3, (1.0,) * 3
        if get("do_normalize"):
            mean, std = tuple(get("image_mean")), tuple(get("image_std"))
        # It rescales first; ours are statistics of values 0..255.
        found.learn("input.mean", tuple(round(one / unit, 9) for one in mean), file)
        found.learn("input.std", tuple(round(one / unit, 9) for one in std), file)
    elif "mean" in found.beside.input:
        found.learn("input.mean", None, "")
        found.learn("input.std", None, "")
    else:
        found.missing.append(f"{STATISTICS_LINE}  # there is no preprocessor_config.json; of values 0..255")
    _size_facts(found, config, family, processor, get)
    number = int(get("resample", 2) or 0)
    resize = _RESIZES.get(number)
    by_pytorch = get("backend") == "torchvision" or get("is_fast")  # the latter before transformers 5
    prefix = "torch_" if by_pytorch else ""
    found.learn("input.resize", prefix + (resize or "bilinear"), file if resize and file else "assumed")
    padded = family in _OWN_SQUARE and get("do_pad")
    fit = "letterbox" if padded else "stretch"
    found.learn("input.fit", fit, f"{file}: padded" if padded else "no border: the whole picture, nothing but it")


def _size_facts(found: Study, config: dict[str, Any], family: str, processor: Any, get: Any) -> None:
    multiple = int(config.get("patch_size", 16)) if family == "beit" else 1 if family in _ANY_SIDE else ASSUMED_MULTIPLE
    if get("size_divisor"):
        multiple = int(get("size_divisor"))
    known = family in (*_ANY_SIDE, *_OWN_SQUARE, "beit") or get("size_divisor")
    found.learn("input.scale", None, "not known")
    found.learn_rows()
    size: dict[str, Any] = dict(get("size") or {})
    sides = size.get("height"), size.get("width")
    own = config.get("image_size")
    origin = "preprocessor_config.json"
    if get("do_center_crop"):
        origin += "; the crop of its centre is left out, the whole picture is seen"
    rule, wanted, edge = "multiple", None, None
    if family in _OWN_SQUARE and isinstance(own, int):
        rule, wanted, origin = "fixed", (own, own), "config.json: it takes this square only"
        if get("do_split_image"):
            rule, edge, multiple = "shortest_edge", own, 1
            origin = "preprocessor_config.json: squares along the longer side"
            size = {}
    elif processor is not None and get("do_resize", True):
        if isinstance(sides[0], int) and isinstance(sides[1], int):
            rule, wanted = "preferred", (sides[0], sides[1])
        elif size.get("shortest_edge"):
            rule, edge = "shortest_edge", int(size["shortest_edge"])
    else:
        origin = "the picture's own size"
    found.learn("input.multiple", multiple, "as its family takes it" if known else "assumed: all families take it")
    found.learn("input.size_rule", rule, origin)
    found.learn("input.size", wanted, origin)
    found.learn("input.shortest_edge", edge, origin)
    longest = size.get("longest_edge") if edge else None
    found.learn("input.longest_edge", longest, origin)


def _processor(path: Path) -> Any:
    """The image processor of a directory, with the defaults of its class."""
    transformers = _transformers(path)
    try:
        return transformers.AutoImageProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the library raises about what is in the directory
        raise CheckpointError(f"{path}: preprocessor_config.json: cannot be used: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """Tell what the library said in one line, and what it was caused by: it hides what is wrong with other packages."""
    texts = [" ".join(str(error).split())[:600]]
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if cause is not error:
        texts.append(f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}")
    if "torchvision::" in texts[-1]:
        texts.append(
            "the installed torchvision does not fit the installed PyTorch: remove it, or install one of the same build"
        )
    return "; ".join(texts)
