"""Runs `shelfprice` as if only some packages were installed: `python -m tests.only_packages PACKAGE… -- COMMAND…`."""

import importlib.abc
import re
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(requirements):
    """Names of packages, and of all that they require."""
    found, left = set(), [Requirement(one) for one in requirements]
    while left:
        one = left.pop()
        extras = {"", *one.extras}
        name = canonicalize_name(one.name)
        if (name, *sorted(extras)) in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found |= {(name, *sorted(extras)), name}
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # of another system
            continue
        left += [
            Requirement(re.sub(";.*", "", str(need)))
            for need in needed
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return {one for one in found if isinstance(one, str)}


class OnlyThese(importlib.abc.MetaPathFinder):
    """Hides every other package that is installed."""

    def __init__(self, packages):
        self.hidden = {
            module
            for module, owners in packages_distributions().items()
            if not {canonicalize_name(owner) for owner in owners} & packages
        }

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r}: it is hidden", name=name)
        return None


if __name__ == "__main__":
    at = sys.argv.index("--")
    packages, command = sys.argv[1:at], sys.argv[at + 1 :]
    sys.meta_path.insert(0, OnlyThese(closure([*packages]) | {"shelfprice"}))
    from store.cli import main

    main(command)
