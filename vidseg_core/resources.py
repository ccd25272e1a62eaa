"""Files that come with the package: `config/` and `weights/`."""

from functools import cache
from pathlib import Path

import yaml

PACKAGE = "vidseg_ros"
# For what is read at every start. The one in C takes a tenth of the time.
YAML_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


@cache
def share_directory() -> Path:
    """Find the directory that holds `config/` and `weights/`.

    Walking up from this file finds it in each way of installing, without asking ament: in a checkout (and in an
    editable install) it is the directory of `package.xml`; after `pip install` and in a colcon install space it is
    `share/vidseg_ros` below the same prefix.

    Raises:
        FileNotFoundError: neither is above this file: the package was copied without its data files.
    """
    here = Path(__file__).resolve()
    for parent in here.parents:
        for candidate in (parent, parent / "share" / PACKAGE):
            if (candidate / "package.xml").is_file() and (candidate / "config" / "classes").is_dir():
                return candidate
    raise FileNotFoundError(
        f"no directory above {here} holds vidseg's package.xml and config/classes: reinstall the package"
    )


def resource(relative: str) -> Path:
    """Return the path of a file that comes with the package, for instance `resource("config/classes/camvid.yaml")`.

    The file itself need not exist: not every weight file that is known comes with the package.
    """
    return share_directory() / relative
