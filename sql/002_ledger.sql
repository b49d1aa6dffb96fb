-- The ledger, version 2: what pgsluice has loaded. Applied by `pgsluice init`; applying it again changes nothing.
--
-- A loader writes here in the transaction that writes the target table, so the two never disagree.
-- The role that loads needs no DDL and need not own anything; `pgsluice init --role loader --print` prints its grants.

create schema if not exists pgsluice;

comment on schema pgsluice is 'The ledger of pgsluice: which segments and messages are in their tables.';

-- One row: the version of everything here. A loader looks at it first.
create table if not exists pgsluice.ledger_version (
    version integer     not null,
    since   timestamptz not null default now()
);

-- A pipeline's name and table stand here; the other tables hold its number.
create table if not exists pgsluice.pipeline (
    id          integer generated always as identity primary key,
    name        text collate "C" not null unique,
    -- as schema.table; null where version 1 wrote it and nobody has said it since
    target      text,
    -- a `replay --again` forgot segments at this time, and has not loaded all of them yet
    again_since timestamptz,
    -- it was told that the table may hold other rows, so that these say nothing of what is loaded
    again_keeps_rows boolean not null default false
);

-- Each segment has a short number, which its messages carry.
create sequence if not exists pgsluice.segment_no as integer;

-- A segment is what one transaction loaded. A segment that is here is not loaded again.
create table if not exists pgsluice.segment (
    pipeline      integer     not null,
    id            uuid        not null,
    segment_no    integer     not null unique,
    received      bigint      not null, -- messages
    loaded        bigint      not null, -- messages that became rows
    duplicates    bigint      not null,
    rejected      bigint      not null,
    rows          bigint      not null, -- rows that the messages became
    first_sent_at timestamptz,
    last_sent_at  timestamptz,
    loaded_at     timestamptz not null default now(),
    host          text        not null,
    -- the fingerprint of the mapping that its rows were made with; null where version 1 loaded it
    mapping       text,
    -- of the rejected: messages that were not recorded but stay in the queue, for its redrive policy (on_reject = "leave")
    left_in_queue uuid[]      not null default '{}',
    -- of the rejected: those that a person gave up (`rejects drop`), whose rows in pgsluice.reject are gone
    dropped       bigint      not null default 0,
    -- its messages of days that are past remembering are removed
    pruned        boolean     not null default false,
    primary key (pipeline, id),
    constraint segment_adds_up check (received = loaded + duplicates + rejected)
);

-- A message is here when its fate is decided: its row is in the target table, or it is in pgsluice.reject. A message
-- that is here and is delivered again is a duplicate. `segment_no` is its owner: the segment whose transaction decided it
-- (0: a segment of version 1, not known which). The time leads the ids in the key, so that index inserts stay at the
-- right edge; where the time of sending is not stable it is 1970-01-01, and the id alone decides.
create table if not exists pgsluice.message (
    sent_at    timestamptz not null,
    message_id uuid        not null,
    pipeline   integer     not null,
    segment_no integer     not null,
    primary key (pipeline, sent_at, message_id)
) partition by range (sent_at);

-- Days before the ledger was made, and messages without a stable time. It has bounds, which never change, rather than
-- being Postgres' DEFAULT partition: to attach a day beside a DEFAULT one, Postgres locks and scans that.
do $$
begin
    if to_regclass('pgsluice.message_default') is null then
        execute format(
            'create table pgsluice.message_default partition of pgsluice.message for values from (minvalue) to (%L)',
            to_char((now() at time zone 'UTC')::date - 15, 'YYYY-MM-DD') || ' 00:00:00+00'
        );
        -- Finds the rows of a segment that is past remembering without reading all others.
        create index message_default_segment_no on pgsluice.message_default using brin (segment_no);
    end if;
end
$$;

-- A message that could not become a row, and why. Its body is in the staging directory, never here.
create table if not exists pgsluice.reject (
    pipeline    integer     not null,
    segment_no  integer     not null,
    message_id  uuid        not null,
    sent_at     timestamptz, -- null where version 1 recorded it
    stage       text        not null check (stage in ('transform', 'load')),
    field       text,
    reason      text        not null,
    rejected_at timestamptz not null default now(),
    primary key (pipeline, segment_no, message_id)
);

-- Which method and key each masked column has been written with.
create table if not exists pgsluice.masking (
    pipeline      integer     not null,
    column_name   text        not null,
    method        text        not null,
    key_id        text        not null,
    first_used_at timestamptz not null default now(),
    primary key (pipeline, column_name, method, key_id)
);

-- Creates the missing partitions of pgsluice.message for these days, counted from 1970-01-01, as far as they are not in
-- message_default. It runs with its owner's rights, so that the loading role needs none to create tables.
--
-- A table is created, then attached: that takes no lock on pgsluice.message that stops loads, as CREATE TABLE …
-- PARTITION OF would, and none on other partitions. Two loaders at once take turns.
create or replace function pgsluice.ensure_message_partitions(days integer[])
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    first_day constant date := (
        select substring(pg_get_expr(relpartbound, oid) from 'TO \(''(\d{4}-\d{2}-\d{2})')::date
        from pg_class where oid = 'pgsluice.message_default'::regclass
    );
    day  integer;
    name text;
begin
    foreach day in array days loop
        continue when date '1970-01-01' + day < first_day;
        name := 'message_' || to_char(date '1970-01-01' + day, 'YYYYMMDD');
        continue when exists (select from pg_class where relname = name and relnamespace = 'pgsluice'::regnamespace);
        perform pg_advisory_xact_lock(hashtextextended('pgsluice.ensure_message_partitions', 0));
        -- Asked of the table, not of a cache, which does not hear of what was made while this one waited.
        continue when exists (select from pg_class where relname = name and relnamespace = 'pgsluice'::regnamespace);
        execute format('create table pgsluice.%I (like pgsluice.message including all)', name);
        execute format(
            'alter table pgsluice.message attach partition pgsluice.%I for values from (%L) to (%L)', name,
            to_char(date '1970-01-01' + day, 'YYYY-MM-DD') || ' 00:00:00+00',
            to_char(date '1970-01-01' + day + 1, 'YYYY-MM-DD') || ' 00:00:00+00'
        );
    end loop;
end
$$;

-- Forgets messages that cannot be delivered any more. SQS keeps a message for at most 14 days after it was sent; a
-- message is remembered for 15 days after it was loaded, and after it was sent.
--
-- Runs call it at their end, so it costs little where nothing is to be forgotten. A partition that is still in use is left
-- for the next time, and those after it: dropping one waits for loads, and loads for it, for a second at most.
create or replace function pgsluice.prune()
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '1s'
as $$
declare
    remembered constant interval := interval '15 days';
    forgotten integer[];
    day       date;
    name      text;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('pgsluice.prune', 0)) then
        return;
    end if;
    with past as (
        update pgsluice.segment set pruned = true where not pruned and loaded_at < now() - remembered
        returning segment_no
    )
    select coalesce(array_agg(segment_no), '{}') into forgotten from past;
    if cardinality(forgotten) > 0 and exists (select from pgsluice.ledger_version where since < now() - remembered) then
        forgotten := forgotten || 0;
    end if;
    delete from pgsluice.message_default where segment_no = any (forgotten);
    -- Last, because no segment is loaded from the lock on to the end of the transaction.
    for name in
        select relname from pg_inherits join pg_class on pg_class.oid = inhrelid
        where inhparent = 'pgsluice.message'::regclass and relname ~ '^message_\d{8}$' order by relname
    loop
        day := to_date(substring(name from 9), 'YYYYMMDD');
        continue when day >= (now() - remembered)::date;
        continue when exists (
            select from pgsluice.segment
            where loaded_at > now() - remembered and first_sent_at < day + 1 and last_sent_at >= day
        );
        begin
            lock table only pgsluice.message in access exclusive mode;
            -- What was loaded while the lock was waited for.
            if exists (
                select from pgsluice.segment
                where loaded_at > now() - remembered and first_sent_at < day + 1 and last_sent_at >= day
            ) then
                raise lock_not_available;
            end if;
            execute format('drop table pgsluice.%I', name);
        exception when lock_not_available then
            exit;
        end;
    end loop;
end
$$;

revoke all on function pgsluice.ensure_message_partitions(integer[]), pgsluice.prune() from public;
create index if not exists segment_not_pruned on pgsluice.segment (loaded_at) where not pruned;

insert into pgsluice.ledger_version (version) select 2 where not exists (select from pgsluice.ledger_version);
