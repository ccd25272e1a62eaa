"""Class tables: which ids there are, what they are called, how they are drawn, and how label files write them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from vidseg_core.errors import ClassTableError, DatasetError
from vidseg_core.resources import YAML_LOADER, resource

VOID = 255
MAX_CLASSES = 255
TRUTH_LOGIT = 10.0
"""Of the class that a label names, above all others', where scores are made of labels."""
Color = tuple[int, int, int]
_SHOWN = 5
# Of Cityscapes' labelIds: parking, rail track, guard rail, bridge, tunnel, polegroup. As class ids they are terrain,
# sky, truck, bus, train and bicycle.
_RARE_LABEL_IDS = (9, 10, 14, 15, 16, 18)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a network or of a data set; the class id is the position in the table, 0..254.

    Attributes:
        name: of the table.
        names: one per class.
        palette: one RGB triple of 0..255 per class.
        void_color: RGB of pixels without a class.
        file_ids: for each class the ids that label files use for it.
        void_ids: ids in label files that mean "no class".
        file_colors: for each class further colours that colour-coded label files use for it, beside `palette`'s.
        void_colors: colours in such files that mean "no class", beside `void_color`.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[Color, ...]
    void_color: Color = (0, 0, 0)
    file_ids: tuple[tuple[int, ...], ...] = ()
    void_ids: tuple[int, ...] = (VOID,)
    # Tables that differ in these alone are equal: a network's own need not know how label files are coloured.
    file_colors: tuple[tuple[Color, ...], ...] = field(default=(), compare=False)
    void_colors: tuple[Color, ...] = field(default=(), compare=False)

    def __post_init__(self):
        def fail(message):
            raise ClassTableError(f"class table {self.name!r}: {message}")

        if not 1 <= len(self.names) <= MAX_CLASSES:
            fail(f"expected 1 to {MAX_CLASSES} classes, got {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            fail("class names must differ")
        if len(self.palette) != len(self.names):
            fail(f"expected {len(self.names)} colours, got {len(self.palette)}")
        if not self.file_colors:
            object.__setattr__(self, "file_colors", ((),) * len(self.names))
        if len(self.file_colors) != len(self.names):
            fail(f"expected colours of label files for {len(self.names)} classes, got {len(self.file_colors)}")
        in_files = [color for colors in self.file_colors for color in colors] + list(self.void_colors)
        for color in (*self.palette, self.void_color, *in_files):
            if len(color) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in color):
                fail(f"expected colours as three integers 0..255, got {list(color)}")
        if len(set(in_files)) != len(in_files) or not set(in_files).isdisjoint(self.palette):
            twice = {color for color in in_files if in_files.count(color) > 1 or color in self.palette}
            fail(f"colours of label files {sorted(twice)} are used twice")
        if not self.file_ids:
            object.__setattr__(self, "file_ids", tuple((i,) for i in range(len(self.names))))
        used = [i for ids in self.file_ids for i in ids] + list(self.void_ids)
        if len(self.file_ids) != len(self.names) or not all(type(i) is int and 0 <= i <= 255 for i in used):
            fail("expected, for every class, label file ids in 0..255")
        if len(set(used)) != len(used):
            fail(f"label file ids {sorted({i for i in used if used.count(i) > 1})} are used twice")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def colors(self) -> np.ndarray:
        """n x 3, uint8, RGB."""
        return np.array(self.palette, dtype=np.uint8).reshape(-1, 3)

    @cached_property
    def lut(self) -> np.ndarray:
        """256 x 3, uint8, RGB: the colour of every id, void's for ids without a class."""
        table = np.tile(np.array(self.void_color, dtype=np.uint8), (256, 1))
        table[: len(self)] = self.colors
        return table

    @cached_property
    def from_file(self) -> np.ndarray:
        """256, int16: label file id -> class id; 255 for void; -1 for ids that the table does not know."""
        table = np.full(256, -1, dtype=np.int16)
        table[list(self.void_ids)] = VOID
        for class_id, ids in enumerate(self.file_ids):
            table[list(ids)] = class_id
        return table

    @cached_property
    def _from_color(self) -> tuple[np.ndarray, np.ndarray]:
        """Ascending codes of all known colours, and their class ids; a class goes before void."""
        known = dict.fromkeys((self.void_color, *self.void_colors), VOID)
        for class_id, (color, more) in enumerate(zip(self.palette, self.file_colors, strict=True)):
            known |= dict.fromkeys((color, *more), class_id)
        codes = np.array([_code(np.array(color, np.uint32)) for color in known])
        order = np.argsort(codes)
        return codes[order], np.array(list(known.values()), np.uint8)[order]

    @property
    def has_class_ids(self) -> bool:
        """Tell whether label files hold class ids: 0 for the first class and so on."""
        return self.file_ids == tuple((i,) for i in range(len(self)))

    def with_class_ids(self) -> ClassTable:
        """Return this table for label files that hold class ids, and 255 for void."""
        return self if self.has_class_ids else replace(self, file_ids=(), void_ids=(VOID,))

    def read_colors(self, colors: np.ndarray, where: str | Path) -> np.ndarray:
        """Translate a colour-coded label file into class ids (H x W, uint8, 255 = void).

        Args:
            colors: H x W x 3, uint8, RGB.
            where: names the file in messages.

        Raises:
            DatasetError: a colour is not in the table, or stands for several classes.
        """
        codes = _code(colors)
        known, ids = self._from_color
        place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        strange = known[place] != codes
        if strange.any():
            found, counts = np.unique(codes[strange], return_counts=True)
            most = np.argsort(-counts)[:_SHOWN]
            shares = (f"{_triple(found[i])} {100 * counts[i] / codes.size:.3g} %" for i in most)
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            grey = (colors[..., :1] == colors).all()
            raise DatasetError(
                f"{where}: colours (red, green, blue) of {100 * strange.mean():.3g} % of the pixels are not in class "
                f"table {self.name!r}: {', '.join(shares)}{more}"
                + ("; all three channels are equal: are these ids, which belong into one channel?" if grey else "")
            )
        for color in {color for color in self.palette if self.palette.count(color) > 1}:
            if (codes == _code(np.array(color, np.uint32))).any():
                several = [name for name, own in zip(self.names, self.palette, strict=True) if own == color]
                raise DatasetError(
                    f"{where}: expected colours of one class each, {color} is that of {' and '.join(several)} in class "
                    f"table {self.name!r}"
                )
        return ids[place]

    def read_ids(self, ids: np.ndarray, where: str | Path) -> np.ndarray:
        """Class ids (H x W, uint8, 255 = void) for the ids of a label file.

        Raises:
            DatasetError: `ids` is not H x W of uint8, or holds an id that the table does not know.
        """
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise DatasetError(f"{where}: expected labels of one channel and 8 bits, got {ids.dtype} {ids.shape}")
        labels = self.from_file[ids]
        if labels.min() < 0:
            unknown = np.unique(ids[labels < 0])
            raise DatasetError(
                f"{where}: label ids {unknown[:8].tolist()} are not in class table {self.name!r} "
                f"(known: {np.flatnonzero(self.from_file >= 0).tolist()})"
            )
        self._refuse_class_ids(ids, labels, where)
        return labels.astype(np.uint8)

    def _refuse_class_ids(self, ids: np.ndarray, labels: np.ndarray, where: str | Path) -> None:
        """Raise DatasetError for a file of trainIds where the table has Cityscapes' labelIds.

        Nothing in such a file says so. What gives it away: it has no id but those of classes and 255, and either both,
        or, read as labelIds, much of what is rare on streets, or more void than anything else.
        """
        if self.name != "cityscapes" or self.has_class_ids:
            return
        void = ids == VOID
        if void.all() or not ((ids < len(self)) | void).all():
            return
        mostly_void = 2 * np.count_nonzero(labels == VOID) > labels.size
        rare = 20 * np.count_nonzero(np.isin(ids, _RARE_LABEL_IDS)) > labels.size
        if void.any() or rare or (mostly_void and ids.max() >= min(map(min, self.file_ids))):
            raise DatasetError(
                f"{where}: expected labelIds of class table {self.name!r}, got what look like class ids (trainIds): "
                f"{np.unique(ids).tolist()}; such files are read with class table {self.name}-trainids "
                "(--label-classes; --classes where that is the labels' table)"
            )

    def to_dict(self) -> dict:
        """Give the table as a JSON-safe dictionary, as `from_dict` takes it."""
        return {
            "name": self.name,
            "classes": [
                {"name": name, "color": list(color), "ids": list(ids)}
                | ({"file_colors": [list(one) for one in more]} if more else {})
                for name, color, ids, more in zip(
                    self.names, self.palette, self.file_ids, self.file_colors, strict=True
                )
            ],
            "void_color": list(self.void_color),
            "void_ids": list(self.void_ids),
        } | ({"void_colors": [list(one) for one in self.void_colors]} if self.void_colors else {})

    @classmethod
    def from_dict(cls, data: dict, where: str | Path = "class table") -> ClassTable:
        """The table that a YAML file or a weight file's metadata describes.

        Raises:
            ClassTableError: a key is missing or unknown, or a value is not of the right kind.
        """
        try:
            unknown = set(data) - {"name", "classes", "void_color", "void_ids", "void_colors"}
            if unknown:
                raise ClassTableError(f"{where}: unknown keys {sorted(unknown)}")
            classes = data["classes"]
            return cls(
                name=_class_name(data["name"], where),
                names=tuple(_class_name(entry["name"], where) for entry in classes),
                palette=tuple(tuple(entry["color"]) for entry in classes),
                void_color=tuple(data.get("void_color", (0, 0, 0))),
                file_ids=tuple(_ids(entry.get("ids", i)) for i, entry in enumerate(classes)),
                void_ids=_ids(data.get("void_ids", VOID)),
                file_colors=tuple(_colors(entry.get("file_colors", ())) for entry in classes),
                void_colors=_colors(data.get("void_colors", ())),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ClassTableError(
                f"{where}: expected `name`, and `classes` as a list of name and color; {type(error).__name__}: {error}"
            ) from error


def for_label_files(classes: ClassTable) -> ClassTable:
    """Return the equal table of `config/classes/`, which may know more colours of label files; else `classes`."""
    path = resource(f"config/classes/{classes.name}.yaml")
    if any(classes.file_colors) or classes.void_colors or Path(classes.name).name != classes.name or not path.is_file():
        return classes
    known = load_classes(classes.name)
    return known if known == classes else classes


def _class_name(name: object, where: str | Path) -> str:
    if name is None or isinstance(name, bool):
        raise ClassTableError(
            f"{where}: expected names as text, got {name!r}; YAML takes yes, no, on, off, true, false and null "
            "for something else unless they stand in quotes"
        )
    return str(name)


def _ids(given: int | list[int]) -> tuple[int, ...]:
    """Ids of label files: one number or several."""
    return (given,) if isinstance(given, int) else tuple(given)


def _colors(given: list) -> tuple[Color, ...]:
    """Colours of label files: one or several."""
    several = [given] if given and isinstance(given[0], int) else given
    return tuple(tuple(one) for one in several)


def _code(colors: np.ndarray) -> np.ndarray:
    """Pack RGB triples (... x 3) into numbers (..., uint32)."""
    red, green, blue = (colors[..., i].astype(np.uint32) for i in range(3))
    return red << 16 | green << 8 | blue


def _triple(code: int) -> tuple[int, ...]:
    return tuple(int(code) >> shift & 255 for shift in (16, 8, 0))


def load_classes(name_or_path: str | Path) -> ClassTable:
    """Read a class table: a name in `config/classes/`, or the path of a YAML file.

    Raises:
        ClassTableError: no such table, or it is malformed.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = resource(f"config/classes/{name_or_path}.yaml")
    if not path.is_file():
        known = sorted(p.stem for p in resource("config/classes").glob("*.yaml"))
        raise ClassTableError(
            f"no class table {str(name_or_path)!r}: expected one of {known} or the path of a YAML file"
        )
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), YAML_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClassTableError(f"{path}: not a YAML file: {error}") from error
    return ClassTable.from_dict(data, path)
