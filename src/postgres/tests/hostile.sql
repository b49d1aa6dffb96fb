-- For each pair of types each operator counts its calls, and so do functions that statements like to use.
CREATE SCHEMA hostile;
CREATE SEQUENCE hostile.calls;
GRANT USAGE ON SCHEMA hostile TO public;
GRANT ALL ON SEQUENCE hostile.calls TO public;

DO $plant$
DECLARE
    pair record;
    symbol text;
    signature text;
    number int := 0;
BEGIN
    FOR pair IN VALUES
        ('int2', 'int2'), ('int4', 'int4'), ('int8', 'int8'), ('int8', 'int4'), ('int4', 'int8'), ('oid', 'oid'),
        ('numeric', 'numeric'), ('numeric', 'int4'), ('float8', 'float8'), ('float8', 'int4'), ('bool', 'bool'),
        ('text', 'text'), ('text', 'int4'), ('name', 'name'), ('name', 'text'), ('"char"', '"char"'), ('uuid', 'uuid'),
        ('timestamptz', 'timestamptz'), ('timestamptz', 'interval'), ('timestamptz', 'date'), ('date', 'date'),
        ('date', 'int4'), ('date', 'interval'), ('interval', 'interval'), ('regclass', 'regclass'), ('oid', 'regclass')
    LOOP
        FOREACH symbol IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>=', '+', '-', '*', '/', '%', '||', '~', '~~'] LOOP
            number := number + 1;
            EXECUTE format(
                $$CREATE FUNCTION hostile.operator_%1$s(%2$s, %3$s) RETURNS %4$s LANGUAGE plpgsql AS
                    'BEGIN PERFORM pg_catalog.nextval(''hostile.calls''); RETURN NULL; END';
                  CREATE OPERATOR hostile.%5$s (FUNCTION = hostile.operator_%1$s, LEFTARG = %2$s, RIGHTARG = %3$s)$$,
                number, pair.column1, pair.column2,
                CASE WHEN symbol IN ('+', '-', '*', '/', '%', '||') THEN pair.column1 ELSE 'bool' END, symbol);
        END LOOP;
    END LOOP;
    FOREACH signature IN ARRAY ARRAY[
        'now() RETURNS timestamptz',
        'clock_timestamp() RETURNS timestamptz',
        'concat_ws(text, timestamptz, timestamptz, int8) RETURNS text',
        'current_setting(text) RETURNS text',
        'date_trunc(text, timestamptz) RETURNS timestamptz',
        'format_type(oid, int4) RETURNS text',
        'generate_series(date, date, interval) RETURNS SETOF timestamptz',
        'generate_series(int4, int4) RETURNS SETOF int4',
        'has_column_privilege(oid, int2, text) RETURNS bool',
        'has_function_privilege(regprocedure, text) RETURNS bool',
        'has_table_privilege(oid, text) RETURNS bool',
        'has_table_privilege(regclass, text) RETURNS bool',
        'lower(text) RETURNS text',
        'pg_advisory_xact_lock(int8) RETURNS void',
        'pg_backend_pid() RETURNS int4',
        'pg_terminate_backend(int4) RETURNS bool',
        'set_config(text, text, bool) RETURNS text',
        'to_regclass(text) RETURNS regclass',
        'to_regprocedure(text) RETURNS regprocedure',
        'unnest(int8[]) RETURNS SETOF int8',
        'unnest(text[]) RETURNS SETOF text',
        'unnest(timestamptz[]) RETURNS SETOF timestamptz',
        'unnest(uuid[]) RETURNS SETOF uuid'
    ] LOOP
        EXECUTE format(
            $$CREATE FUNCTION hostile.%s LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_catalog.nextval(''hostile.calls''); RETURN%s; END'$$,
            signature, CASE WHEN signature ~ 'SETOF|void' THEN '' ELSE ' NULL' END);
    END LOOP;
    -- A path that names pg_catalog searches it in its place, not first.
    EXECUTE format('ALTER DATABASE %I SET search_path = hostile, pg_catalog, public', current_database());
END $plant$;
