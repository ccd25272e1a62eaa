"""`vidseg weights inspect`: what a network is, what was assumed of it, and what it makes of a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vidseg_core.errors import ConfigError

_PARTS = "input", "output"
_COMMENT = {
    "input": "what the network is given: (value - mean) / std of values 0..255",
    "output": "what it gives",
    "classes": "their names in order, or a class table",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a weight file, a network of others (.onnx, .pt2, a Hugging Face directory), or a registered name",
    )
    parser.add_argument("--image", metavar="FILE", type=Path, help="have the network label this picture")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where the overlay, and for a network of others a card to edit, go "
        "(default: with --image, the current folder)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def inspect_weights(args: argparse.Namespace, records) -> int:
    """Run the command; raise CheckpointError where something that is needed is not known."""
    from vidseg_core.models.foreign import form_of, study
    from vidseg_core.models.registry import find_weights

    path = find_weights(args.file, records)
    folder, kept = _folder(args), False
    form = form_of(path)
    if form is not None:
        found = study(path)
        facts = {name: {"value": _plain(value), "from": origin} for name, (value, origin) in found.facts.items()}
        missing, problem = found.missing, None if found.card else found.fail()
        runs_on = list(found.network.backends) if found.network else []
        problems = dict(found.network.problems) if found.network else {}
        if folder is not None:
            card = folder / found.beside.path.name
            kept = card.exists()
            if kept and args.image is None:  # then the card is all that is wanted
                raise ConfigError(f"{card}: exists already; a card is not overwritten")
            if not kept:
                card.write_text(card_text(facts, missing), encoding="utf-8")
    else:
        facts, missing, problem, runs_on, problems, card = _own(path, records), [], None, [], {}, None
    result = {
        "file": str(path), "facts": facts, "missing": missing, "runs_on": runs_on, "problems": problems,
        "overlay": None, "card": str(card) if folder and form else None, "card_kept": kept,
    }  # fmt: skip
    if problem is None and args.image is not None:
        result |= _labelled(path, args.image, folder)
    _print(result, args.json)
    if problem is not None:
        raise problem
    return 0


def _folder(args: argparse.Namespace) -> Path | None:
    from vidseg_core.data.writers import output_folder

    wanted = args.out or (Path(".") if args.image is not None else None)
    return None if wanted is None else output_folder(wanted)


def _own(path: Path, records) -> dict[str, dict[str, Any]]:
    from dataclasses import asdict

    from vidseg_core.models.open import open_model

    card = open_model(path, None, records).card
    facts: dict[str, Any] = {"architecture": card.architecture}
    for part in ("input", "output"):
        facts |= {f"{part}.{name}": value for name, value in asdict(getattr(card, part)).items()}
    facts |= {"classes": card.classes, "licence": card.licence, "source": card.source}
    return {name: {"value": _plain(value), "from": "file or registry"} for name, value in facts.items()}


def _labelled(path: Path, image: Path, folder: Path | None) -> dict[str, Any]:
    """Label a picture by the network alone; write the overlay."""
    import numpy as np

    from vidseg_core.data.images import read_rgb
    from vidseg_core.data.writers import write_image
    from vidseg_core.engine.build import build_engine
    from vidseg_core.engine.config import EngineConfig
    from vidseg_core.frame import Frame
    from vidseg_core.overlay import overlay

    picture = read_rgb(image, ConfigError)
    with build_engine(EngineConfig(weights=str(path), interval=0, fusion=False)) as engine:
        labels = engine.stream().step(Frame(picture, 0, name=image.name)).labels
        shares = {name: round(float(np.mean(labels == i)), 4) for i, name in enumerate(engine.classes.names)}
        assert folder is not None  # `_folder` has made one where there is a picture
        target = folder / f"{path.stem}.overlay.png"
        write_image(target, overlay(picture, labels, engine.classes.lut))
    return {"overlay": str(target), "shares": {name: share for name, share in shares.items() if share}}


def _plain(value: Any) -> Any:
    """The same, JSON-safe."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def card_text(facts: dict[str, dict[str, Any]], missing: list[str]) -> str:
    """Write the card that says what is known; what is assumed is marked, what is missing is a comment to fill in."""
    lines = [
        "# Beside the file or directory, as NAME.card.yaml. What a line does not say is taken from the file or assumed."
    ]
    lines += [f"# needed: {line}" for line in missing if not line.startswith(tuple(f"{part}:" for part in _PARTS))]
    for part in _PARTS:
        known = {name.split(".")[1]: fact for name, fact in facts.items() if name.startswith(f"{part}.")}
        known = {name: fact for name, fact in known.items() if fact["value"] is not None and name != "stride"}
        needed = [line for line in missing if line.startswith(f"{part}:")]
        lines += ["", f"# {_COMMENT[part]}", f"{part}:"] if known or needed else []
        for line in needed:
            comment = line.partition("  #")[2]
            lines += [f"  # needed:{comment}", *(f"  # {key}: {json.dumps(v)}" for key, v in _said(line)[part].items())]
        lines += [f"  {name}: {json.dumps(fact['value'])}  # {fact['from']}" for name, fact in known.items()]
    if "classes" in facts:
        names = [one["name"] for one in facts["classes"]["value"]["classes"]]
        lines += ["", f"# {_COMMENT['classes']}", f"classes: {json.dumps(names)}  # {facts['classes']['from']}"]
    return "\n".join(lines) + "\n"


def _said(line: str) -> dict[str, dict[str, Any]]:
    import yaml

    return yaml.safe_load(line)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(result["file"])
    width = max(map(len, result["facts"]), default=0)
    for name, fact in result["facts"].items():
        value = fact["value"]
        if isinstance(value, dict):
            value = ", ".join(one["name"] for one in value["classes"])
        print(f"  {name.ljust(width)}  {value}  ({fact['from']})")
    for line in result["missing"]:
        print(f"  needed: {line}")
    if result["runs_on"]:
        print(f"  runs on: {', '.join(result['runs_on'])}")
    for problem in result["problems"].values():
        print(f"  does not run on {problem}")
    for what in ("overlay", "card"):
        if result[what]:
            print(f"  {what}: {result[what]}{' (kept as it was)' if what == 'card' and result['card_kept'] else ''}")
    if result.get("shares"):
        print(
            "  in the picture: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["shares"].items())
        )
