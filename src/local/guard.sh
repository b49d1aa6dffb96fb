# Runs a temporary Postgres until standard input closes, then removes every trace of it.
# usage: guard DIRECTORY BINARIES SETTING…; the first line of standard input is the superuser's password. Each further
# line is a signal that stops the server; it is then started again, which the line `restarted` on standard output says.
# Exit code 2: the cluster could not be created; 3: the server has ended. Prints the end of the log.
umask 077
directory=$1
binaries=$2
shift 2
IFS= read -r password || exit 2
mkdir "$directory" || exit 2

leave() {
    tail -n 20 "$directory/log"
    rm -rf "$directory"
    exit "$1"
}

printf '%s\n' "$password" >"$directory/password"
"$binaries/initdb" --pgdata="$directory/data" --username=postgres --pwfile="$directory/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync --no-instructions \
    </dev/null >"$directory/log" 2>&1 || leave 2
rm "$directory/password"

start() {
    "$binaries/postgres" -D "$directory/data" "$@" </dev/null 3<&- >>"$directory/log" 2>&1 &
    server=$!
    echo "$server" >"$directory/pid"
}

exec 3<&0
start "$@"
# Immediate shutdown (SIGQUIT): what it would still write is about to be removed.
trap 'kill -QUIT "$server"' HUP INT TERM
(
    trap - HUP INT TERM
    while read -r signal; do
        : >"$directory/restart"
        kill -"$signal" "$(cat "$directory/pid")"
    done
    rm -f "$directory/restart"
    kill -QUIT "$(cat "$directory/pid")"
) <&3 &
watcher=$!
exec 3<&-

while :; do
    # A signal interrupts `wait`, so it is asked again while the server is there.
    while kill -0 "$server" 2>/dev/null; do
        wait "$server"
    done
    [ -e "$directory/restart" ] || break
    rm "$directory/restart"
    start "$@"
    echo restarted
done
kill "$watcher" 2>/dev/null
leave 3
