#!/bin/sh
# numba 0.68.1, Python 3.11: a function with cache=True that takes a NamedTuple cannot be called any more once the class
# has another name and the function is at the same line. One would expect that the source's new time makes the cached
# code stale, and that the function is compiled again. But the index of the cache holds the class by its name, and is
# read before the time of the source is compared:
#
#   first: 3.0
#   AttributeError: Can't get attribute 'View' on <module 'kernel' from ...>
#
# Removing __pycache__/kernel.*.nbi cures it. Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numba==0.68.1 numpy==2.2.6
write() {
    cat >"$work/kernel.py" <<END
from typing import NamedTuple

from numba import njit


class $1(NamedTuple):
    x: float
    y: float


@njit(cache=True)
def total(point):
    return point.x + point.y


if __name__ != "__main__":
    make = $1
END
}
cd "$work"
write View
echo "first: $(venv/bin/python -c 'import kernel; print(kernel.total(kernel.make(1.0, 2.0)))')"
write Camera
touch -d '+1 minute' kernel.py
if said=$(venv/bin/python -c 'import kernel; print(kernel.total(kernel.make(1.0, 2.0)))' 2>&1); then
    echo "changed: it was compiled again, and gave $said"
    exit 1
fi
echo "$said" | tail -1
echo "$said" | grep -q "AttributeError: Can't get attribute 'View'"
