#!/bin/sh
# Hold what refusalkit reads, writes and runs against the real programs, in an environment of its own.
#
#     sh scripts/integrations.sh              # the pinned, newest versions
#     OLDEST=1 sh scripts/integrations.sh     # the oldest Inspect that the extra allows
#     PYTHON=python3.13 sh scripts/integrations.sh
#     SETUP_ONLY=1 sh scripts/integrations.sh # make the environment, test nothing
#
# Ends with 75 where the environment cannot be made: no Python 3.12 or newer, or no registry.
set -eu

unset CDPATH PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
cd -- "$(dirname -- "$0")/.."

PINS=tests/integrations/real/requirements.txt
HOME_OF=build/integrations
FILES=tests/integrations/real
if [ -n "${OLDEST:-}" ]; then
    HOME_OF=build/integrations-oldest
    FILES=tests/integrations/real/test_inspect.py
fi
PY=$HOME_OF/bin/python
READY=$HOME_OF/.refusalkit-ready

say() { printf '%s\n' "$*" >&2; }
cannot() {
    say "The integrations were NOT tested: $*"
    exit 75
}

# "ok" if `$1` is Python 3.12 or newer with venv and pip; nothing otherwise.
fits() {
    "$1" -c "import ensurepip, sys, venv; print('ok' if sys.version_info >= (3, 12) else '')" 2>/dev/null
}

find_python() {
    for name in "${PYTHON:-}" python3.12 python3.13 python3 python3.14 python \
        "$HOME"/.pyenv/versions/3.12.*/bin/python3 "$HOME"/.pyenv/versions/3.13.*/bin/python3; do
        if [ -n "$name" ] && [ "$(fits "$name")" = ok ]; then
            printf '%s\n' "$name"
            return
        fi
    done
}

python=$(find_python)
[ -n "$python" ] || cannot "they need Python 3.12 or newer with venv and pip; install one, or name it:" \
    "make test-integrations PYTHON=/path/to/python3.12"

wanted=$(pwd -P; cat pyproject.toml "$PINS" scripts/integrations.sh | cksum)
if [ ! -f "$READY" ] || [ "$(cat "$READY")" != "$wanted" ] || [ "$(fits "$PY")" != ok ]; then
    say "Setting up $HOME_OF with $("$python" --version) (a minute or two, once) ..."
    rm -rf "$HOME_OF"
    "$python" -m venv "$HOME_OF"
    # The list is whole, so nothing needs to be resolved.
    if ! { command -v uv >/dev/null 2>&1 && uv pip install --quiet --python "$PY" --requirement "$PINS"; } \
        && ! "$PY" -m pip install --quiet --no-compile --no-deps --requirement "$PINS"; then
        # A registry that gives nothing at all is no fault of the pins.
        "$PY" -m pip download --quiet --no-deps --dest "$HOME_OF/probe" pytest >/dev/null 2>&1 \
            || cannot "no package could be fetched."
        say "The pinned packages cannot be installed: renew $PINS."
        exit 1
    fi
    "$PY" -m pip install --quiet --no-compile --no-deps --editable .
    if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then
        # Python may not write bytecode, so each process would compile all of it anew.
        "$PY" -m compileall -q -j 0 "$HOME_OF/lib" >/dev/null 2>&1 || :
    fi
    if [ -n "${OLDEST:-}" ]; then
        oldest=$(sed -n 's/^inspect = \["inspect_ai>=\([0-9.]*\).*/\1/p' pyproject.toml)
        "$PY" -m pip install --quiet --no-compile "inspect_ai==$oldest"
    fi
    printf '%s\n' "$wanted" >"$READY"
fi

[ -z "${SETUP_ONLY:-}" ] || exit 0
# LangChain brings a plugin that warns as it is loaded by Python 3.14.
exec "$PY" -m pytest -n 2 -p no:cacheprovider -p no:langsmith_plugin "$FILES"
