#!/bin/sh
# Installs claude-proxy from this checkout into its own environment, with the command in ~/.local/bin: with uv or pipx if
# there is one, else into a venv. Run it again to update. ./uninstall.sh removes it.
#
#   ./install.sh [--method uv|pipx|venv]
set -eu

share=${XDG_DATA_HOME:-"$HOME/.local/share"}/claude-proxy
record=$share/installed-by
bin=$HOME/.local/bin
link=$bin/claude-proxy

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            say "$candidate"
            return
        fi
    done
    fail "claude-proxy needs Python 3.10 or newer, and none was found on PATH; install one"
}

method=
while [ $# -gt 0 ]; do
    case $1 in
        --method)
            [ $# -ge 2 ] || fail "--method needs one of: uv, pipx, venv"
            method=$2
            shift 2
            ;;
        -h | --help)
            sed -n '2,5s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *) fail "unknown option $1; see ./install.sh --help" ;;
    esac
done

[ -d "${HOME:-}" ] || fail "HOME is not a folder; set it to yours"
source=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ -f "$source/setup.cfg" ] || fail "run it from a checkout of claude-proxy: $source has no setup.cfg"

# An update uses the method of the first installation.
if [ -z "$method" ] && [ -f "$record" ]; then
    method=$(cat "$record")
fi
if [ -z "$method" ]; then
    if command -v uv >/dev/null 2>&1; then
        method=uv
    elif command -v pipx >/dev/null 2>&1; then
        method=pipx
    else
        method=venv
    fi
fi

case $method in
    uv | pipx)
        command -v "$method" >/dev/null 2>&1 || fail "$method was not found on PATH; install it, or use --method venv"
        ;;
    venv) python=$(find_python) ;;
    *) fail "unknown method $method; use uv, pipx or venv" ;;
esac

mkdir -p "$share" "$bin" || fail "$share and $bin cannot be created; check who owns $HOME/.local"

# A command of another installation is kept, and restored if this one fails.
backup=
if { [ -e "$link" ] || [ -L "$link" ]; } && [ ! -f "$record" ]; then
    [ ! -e "$link.bak" ] || fail "$link and $link.bak exist already; move one of them away"
    backup=$link.bak
    trap 'rm -f "$link"; mv "$backup" "$link"' EXIT
    mv "$link" "$backup"
fi

say "Installing claude-proxy from $source by $method ..."
case $method in
    uv)
        uv tool install --quiet --force --reinstall --constraints "$source/constraints.txt" "$source" ||
            fail "uv could not install it; see above, or try --method venv"
        ;;
    pipx)
        pipx install --quiet --force --pip-args="-c $source/constraints.txt" "$source" ||
            fail "pipx could not install it; see above, or try --method venv"
        ;;
    venv)
        "$python" -m venv --clear "$share/venv" ||
            fail "the venv could not be created; on Debian and Ubuntu, install the package python3-venv"
        "$share/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            -c "$source/constraints.txt" "$source" || fail "pip could not install it; see above"
        ln -sf "$share/venv/bin/claude-proxy" "$link"
        ;;
esac
"$link" --version || fail "$link does not run; see above"
say "$method" >"$record"
if [ -n "$backup" ]; then
    trap - EXIT
    say "kept the claude-proxy that was there as $backup"
fi
case :$PATH: in
    *":$bin:"*) command=claude-proxy ;;
    *)
        command=$link
        say "$bin is not on your PATH. To add it:"
        # The line is for the user's shell, which expands it.
        # shellcheck disable=SC2016
        say '  echo '\''export PATH="$HOME/.local/bin:$PATH"'\'' >> ~/.profile'
        ;;
esac
say "Next: $command add, then $command code MODEL"
