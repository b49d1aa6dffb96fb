#!/bin/sh
# Makes docs/report.png: the page that `pgsluice report` writes about a run over 60,000 messages of its own queue.
# Needs Chromium and `cargo build --release --bins --examples`; `PROFILE=debug` takes the debug build.
set -eu
messages=60000
. "$(dirname "$0")/servers.sh"
export PGSLUICE_STAGING_DIR="$work/staging"
printf '[spool]\nsegment_max_messages = 2000\n' >"$work/pgsluice.toml"
"$bin/pgsluice" run --config "$work/pgsluice.toml" --report "$work/report.json"
"$bin/pgsluice" report "$work/report.json" --output "$work/report.html"
cp "$work/report.json" "$work/report.html" "${KEEP:-$work}" 2>/dev/null || :
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=0.75 --window-size=1040,2200 \
	--screenshot="${PICTURE:-docs/report.png}" "file://$work/report.html"
