"""Turns spool files into one CSV file with DuckDB, on all cores.

DuckDB has no AES, so nothing is masked: `ip` and `device_id` are written as they are.

usage: duckdb_transform.py SPOOL_DIR CSV_FILE
"""

import sys

import duckdb

TRANSFORM = """
    COPY (
        SELECT login.user_id, login.device_type, login.ip, login.device_id, login.locale,
               replace(login.app_version, '.', '')::INTEGER, epoch_ms(sent_at)::DATE
        FROM (
            SELECT sent_at, from_json(body, '{
                "user_id": "VARCHAR", "device_type": "VARCHAR", "ip": "VARCHAR",
                "device_id": "VARCHAR", "locale": "VARCHAR", "app_version": "VARCHAR"
            }') AS login
            FROM read_json(
                $spool,
                format = 'newline_delimited',
                columns = {sent_at: 'BIGINT', body: 'VARCHAR'}
            )
        )
        WHERE login.user_id IS NOT NULL AND login.device_type IS NOT NULL AND login.ip IS NOT NULL
          AND login.device_id IS NOT NULL AND login.app_version IS NOT NULL
    ) TO '$csv' (FORMAT csv, HEADER false)
"""


def main() -> None:
    """All files at once."""
    spool_dir, csv_file = sys.argv[1:]
    connection = duckdb.connect()
    # The order of rows does not matter to a table, and keeping it would cost time and memory.
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(TRANSFORM.replace("$csv", csv_file), {"spool": f"{spool_dir}/*.ndjson"})


if __name__ == "__main__":
    main()
