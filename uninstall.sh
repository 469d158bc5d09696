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

# Folders of our programs, as the link names it and without symbolic links: daemons and services of other installations
# are left alone.
target=$(readlink "$link" 2>/dev/null || true)
resolved=$(readlink -f "$link" 2>/dev/null || true)
case $resolved in
    */claude-proxyd/bin/claude-proxy | */claude-proxy/venv/bin/claude-proxy) is_ours=yes ;;
    *) is_ours=no ;;
esac
folder=$(dirname "${target:-none}")
resolved_folder=$(dirname "${resolved:-none}")

service_is_ours() {
    for file in "${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/claude-proxy.service" \
        "$HOME/Library/LaunchAgents/com.claude-proxy.daemon.plist"; do
        if grep -qF -e "$folder/claude-proxy" -e "$resolved_folder/claude-proxy" -e "$link" "$file" 2>/dev/null; then
            return 0
        fi
    done
    return 1
}

daemon_is_ours() {
    pid=$("$link" status --json 2>/dev/null | sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p')
    [ -n "$pid" ] || return 1
    if [ -r "/proc/$pid/cmdline" ]; then
        program=$(tr '\0' ' ' <"/proc/$pid/cmdline")
    else
        program=$(ps -o command= -p "$pid" || true)
    fi
    case $program in
        "$folder"/* | "$resolved_folder"/*) return 0 ;;
        *) return 1 ;;
    esac
}

if [ $is_ours = yes ] && [ -x "$link" ]; then
    if service_is_ours; then
        "$link" service uninstall || true
    fi
    if daemon_is_ours; then
        "$link" stop || true
    fi
fi

case $method in
    uv) uv tool uninstall claude-proxyd || fail "uv could not remove it" ;;
    pipx) pipx uninstall claude-proxyd || fail "pipx could not remove it" ;;
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
