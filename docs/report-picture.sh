#!/bin/sh
# Makes docs/report.png: the page that `pgsluice report` writes about a run over 60,000 messages of its own queue.
# Needs Chromium; `PROFILE=debug` takes the debug build.
set -eu
cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
bin=${CARGO_TARGET_DIR:-target}/$profile
work=$(mktemp -d)
mkfifo "$work/open"
# Both servers end when their standard input is closed.
"$bin/examples/local-queue" login-queue 60000 <"$work/open" >"$work/queue" &
"$bin/examples/local-postgres" <"$work/open" >"$work/postgres" &
exec 3>"$work/open"
trap 'exec 3>&-; wait; rm -rf "$work"' EXIT
until grep -qs PGSLUICE_QUEUE_URL "$work/queue" && grep -qs DATABASE_URL "$work/postgres"; do sleep 0.2; done
set -a
. "$work/queue"
. "$work/postgres"
AWS_REGION=eu-central-1 AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
PGSLUICE_KEY=$("$bin/pgsluice" keygen) PGSLUICE_STAGING_DIR=$work/staging
set +a
printf '[spool]\nsegment_max_messages = 2000\n' >"$work/pgsluice.toml"
"$bin/pgsluice" init
"$bin/pgsluice" run --config "$work/pgsluice.toml" --report "$work/report.json"
"$bin/pgsluice" report "$work/report.json" --output "$work/report.html"
cp "$work/report.json" "$work/report.html" "${KEEP:-$work}" 2>/dev/null || :
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=0.75 --window-size=1040,2200 \
	--screenshot="${PICTURE:-docs/report.png}" "file://$work/report.html"
