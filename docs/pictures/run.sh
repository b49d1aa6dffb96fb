#!/bin/sh
# Makes docs/run.svg: a terminal in which `pgsluice run` empties a queue of its own, while it runs and at its end.
# `make picture` builds what it needs; `PROFILE=debug` takes the debug build, PYTHON one that has rich.
set -eu
messages=200000 columns=100
. "$(dirname "$0")/servers.sh"

# A server of its own, so that no configuration of a person's tmux is in the picture.
terminal() { tmux -S "$work/tmux" -f /dev/null "$@"; }
shown() { terminal capture-pane -e -p -t picture; }
# Takes the picture `name` as soon as the terminal shows `text`.
capture() {
	for _ in $(seq 600); do
		shown >"$work/$1"
		! grep -q "$2" "$work/$1" || return 0
		sleep 0.1
	done
	echo "the terminal never showed \"$2\":" >&2
	cat "$work/$1" >&2
	exit 1
}

# The shell after it keeps the terminal open until the server ends.
cat >"$work/session" <<'END'
printf '\033[1;32m$\033[0m \033[1mpgsluice run\033[0m\n'
cd "$1" && "$2/pgsluice" run
exec sleep 600
END
terminal new-session -d -s picture -x "$columns" -y 24 sh "$work/session" "$work" "$bin"
# About half of it is done.
capture running '([4-7][0-9] %)'
capture ended 'the queue is empty'
terminal kill-server
"${PYTHON:-python3}" docs/pictures/terminal.py "$columns" "$work/running" "$work/ended" >"${PICTURE:-docs/run.svg}"
