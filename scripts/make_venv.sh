#!/bin/sh
# Make the virtual environment $1 with a Python of 3.11 or newer, and pip in it.
# PYTHON=/path/to/python chooses one. Running it again on an environment that is there changes nothing in it.
set -eu
venv=$1

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

python=
for name in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    if fits "$name"; then python=$name; break; fi
done
if [ -z "$python" ]; then
    echo "skillweave needs Python 3.11 or newer, and none of these is one: ${PYTHON:-python3.13 python3.12 python3.11 python3 python}." >&2
    echo "hint: install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python), or say PYTHON=/path/to/python make ..." >&2
    exit 1
fi

echo "making $venv with $("$python" --version) ($(command -v "$python"))"
if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    "$python" -m venv "$venv"
elif "$python" -m pip --version >/dev/null 2>&1; then # some systems keep ensurepip in a package of its own
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip --python "$venv/bin/python" install --quiet pip
else
    echo "$("$python" --version) is here, but it can make no virtual environment with pip: ensurepip is missing." >&2
    echo "hint: Debian, Ubuntu: sudo apt install python3-venv" >&2
    exit 1
fi
