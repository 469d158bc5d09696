#!/bin/sh
# Removes what install.sh has installed: the service, the environment and the command. models.yaml, hooks, the env file and
# the ledger stay; their folders are named at the end.
set -eu

share=${XDG_DATA_HOME:-"$HOME/.local/share"}/claude-proxy
record=$share/installed-by
bin=$HOME/.local/bin
link=$bin/claude-proxy

say() { printf '%s\n' "$*"; }
fail() { printf 'uninstall.sh: %s\n' "$*" >&2; exit 1; }

if [ ! -f "$record" ]; then
    say "install.sh has not installed claude-proxy here; there is nothing to remove."
    exit 0
fi
method=$(cat "$record")

if [ -x "$link" ]; then
    "$link" service uninstall 2>/dev/null || true
    # A daemon without a service; exit code 3 means that none runs.
    "$link" stop 2>/dev/null || true
fi

case $method in
    uv) uv tool uninstall claude-proxy || fail "uv could not remove it" ;;
    pipx) pipx uninstall claude-proxy || fail "pipx could not remove it" ;;
    venv)
        if [ "$(readlink "$link" 2>/dev/null)" = "$share/venv/bin/claude-proxy" ]; then
            rm -f "$link"
        else
            say "kept $link, which is not ours"
        fi
        rm -rf "$share/venv"
        ;;
    *) fail "$record holds '$method', which is not a method of install.sh" ;;
esac
rm -f "$record"
rmdir "$share" 2>/dev/null || true
if [ -e "$link.bak" ] && [ ! -e "$link" ]; then
    mv "$link.bak" "$link"
    say "put back the claude-proxy that was there before"
fi
say "Removed. Kept, if they are there: ${XDG_CONFIG_HOME:-$HOME/.config}/claude-proxy (configuration)"
say "and ${XDG_STATE_HOME:-$HOME/.local/state}/claude-proxy (ledger, records, logs)."
