#!/bin/sh
# Make .venv ready: the locked packages, hashes checked, and refusalkit itself, editable.
#
# Uses uv if it is there, else venv and pip. Does nothing when .venv is ready already, and starts
# over when a set-up was interrupted, the clone was moved, or another Python is asked for:
#
#     PYTHON=python3.13 sh scripts/setup.sh
#
# A .venv that this script did not make is used as it is and completed.
set -eu

unset CDPATH PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 UV_PROJECT_ENVIRONMENT=.venv
cd -- "$(dirname -- "$0")/.."

PY=.venv/bin/python
READY=.venv/.refusalkit-ready     # written last: holds what .venv was made for
STARTED=.venv/.refusalkit-started # there while a set-up is under way

say() { printf '%s\n' "$*" >&2; }

fingerprint() {
    pwd -P
    cat pyproject.toml uv.lock requirements-dev.txt scripts/setup.sh | cksum
}

# What `$1 -c` says of itself: "ok" if it is Python >= 3.11 and below $2; nothing if it is no Python.
version_fits() {
    "$1" -c "import sys; print('ok' if (3, 11) <= sys.version_info < $2 else '')" 2>/dev/null
}

# The tested versions first, whatever they are called; then anything newer.
find_python() {
    for below in '(3, 15)' '(4,)'; do
        for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
            if [ "$(version_fits "$name" "$below")" = ok ]; then
                printf '%s\n' "$name"
                return
            fi
        done
    done
}

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

wanted=$(fingerprint)
if [ -f "$READY" ] && [ "$(cat "$READY")" = "$wanted" ] && [ -z "${PYTHON:-}" ] \
    && [ "$(version_fits "$PY" '(4,)')" = ok ]; then
    exit 0
fi

python=${PYTHON:-$(find_python)}
if [ -n "${PYTHON:-}" ] && [ "$(version_fits "$PYTHON" '(4,)')" != ok ]; then
    say "refusalkit needs Python 3.11 or newer, and PYTHON=$PYTHON is not that."
    exit 1
fi
if [ -z "$python" ] && ! command -v uv >/dev/null 2>&1; then
    say "refusalkit needs Python 3.11 or newer and found none: install one (or uv) and run this again," \
        "or name it: make setup PYTHON=/path/to/python3"
    exit 1
fi

# Keep .venv only if it is whole, in its place, and of the Python that was asked for.
same_python() {
    [ -z "${PYTHON:-}" ] && return 0
    tell='import sys; print(sys.version_info[:3])'
    [ "$("$PYTHON" -c "$tell")" = "$("$PY" -c "$tell")" ]
}
keep() {
    [ ! -e "$STARTED" ] || return 1
    [ "$(version_fits "$PY" '(4,)')" = ok ] || return 1
    [ ! -f "$READY" ] || [ "$(head -n 1 "$READY")" = "$(pwd -P)" ] || return 1
    same_python
}
if keep; then
    [ ! -f "$READY" ] || [ "$(cat "$READY")" != "$wanted" ] || exit 0
else
    # Python goes first: what an interrupted rm leaves must not look like a whole .venv.
    rm -rf .venv/bin
    rm -rf .venv
fi
mkdir -p .venv
: >"$STARTED"
rm -f "$READY"

with_uv() {
    command -v uv >/dev/null 2>&1 || return 1
    say "Setting up .venv with uv ..."
    if [ ! -e "$PY" ]; then
        uv venv --quiet --allow-existing ${python:+--python "$python"} .venv || return 1
    fi
    # The build back end comes from the lock too, so no unlocked package is ever fetched.
    uv sync --quiet --frozen --group dev --no-install-project --python "$PY" \
        && uv pip install --quiet --python "$PY" --no-deps --no-build-isolation --editable .
}

with_pip() {
    if [ ! -e "$PY" ]; then
        if [ -z "$python" ] || ! has_venv "$python"; then
            say "$python has no venv or no pip: install them (on Debian and Ubuntu: apt install" \
                "python3-venv) and run this again."
            return 1
        fi
        say "Setting up .venv with $python and pip (a minute or so, once) ..."
        "$python" -m venv .venv || return 1
    else
        say "Bringing .venv up to date with pip ..."
    fi
    "$PY" -m pip --version >/dev/null 2>&1 || "$PY" -m ensurepip >/dev/null || return 1
    # The list is whole. Left to itself pip asks for the newest `coverage[toml]` although the list
    # pins `coverage`, and finds that it has no hash for that.
    "$PY" -m pip install --quiet --require-hashes --no-deps --no-compile -r requirements-dev.txt \
        && "$PY" -m pip install --quiet --no-deps --no-build-isolation --editable .
}

if ! with_uv; then
    if command -v uv >/dev/null 2>&1; then
        say "uv could not do it; trying venv and pip."
    fi
    if ! with_pip; then
        say "The set-up did not finish: see the message above, then run this again."
        exit 1
    fi
fi

"$PY" -c 'import refusalkit' || exit 1
# Once for all processes that will be started: where Python may not write bytecode of its own
# (PYTHONDONTWRITEBYTECODE) each of them would compile polars and aiohttp anew. A package may ship a
# file that does not compile; that is its own affair.
"$PY" -m compileall -q -j 0 .venv/lib src >/dev/null 2>&1 || :
printf '%s\n' "$wanted" >"$READY"
rm -f "$STARTED"
say ".venv is ready ($("$PY" --version))."
