"""Print the exact version of every package that `pip install 'skillweave[dev]'` brought into this environment, one a line.

python scripts/constraints.py > constraints.txt
"""

from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = "# Exact versions for `make quickstart` and `make test`, written by scripts/constraints.py.\n"


def closure(name: str, extras: frozenset[str], pins: dict[str, str], seen: set) -> None:
    """Put `name` and all it needs here, with `extras`, into `pins`."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    try:
        found = distribution(name)
    except PackageNotFoundError:  # for another system or Python
        return
    pins[canonicalize_name(name)] = found.version.split("+")[0]
    for requirement in map(Requirement, found.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            closure(canonicalize_name(requirement.name), frozenset(requirement.extras), pins, seen)


if __name__ == "__main__":
    pins: dict[str, str] = {}
    closure("skillweave", frozenset({"dev"}), pins, set())
    print(HEAD + "\n".join(f"{name}=={version}" for name, version in sorted(pins.items()) if name != "skillweave"))
