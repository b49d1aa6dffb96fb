# For a script that makes a picture, which sources it: a queue that holds this number of logins and a Postgres with the
# ledger, in which commands find themselves. Leaves the binary's directory in $bin, a temporary one in $work.
cd "$(dirname "$0")/../.."
bin=$(cd "${CARGO_TARGET_DIR:-target}/${PROFILE:-release}" && pwd)
work=$(mktemp -d)
mkfifo "$work/open"
# Both servers end when their standard input is closed.
"$bin/examples/local-queue" login-queue "$messages" <"$work/open" >"$work/queue" &
"$bin/examples/local-postgres" <"$work/open" >"$work/postgres" &
exec 3>"$work/open"
trap 'exec 3>&-; wait; rm -rf "$work"' EXIT
until grep -qs PGSLUICE_QUEUE_URL "$work/queue" && grep -qs DATABASE_URL "$work/postgres"; do sleep 0.2; done
set -a
. "$work/queue"
. "$work/postgres"
AWS_REGION=eu-central-1 AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
PGSLUICE_KEY=$("$bin/pgsluice" keygen)
set +a
"$bin/pgsluice" init
