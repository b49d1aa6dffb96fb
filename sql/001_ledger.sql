-- The ledger: what pgsluice has loaded. Applied by `pgsluice init`; applying it again changes nothing.
--
-- A loader writes here in the transaction that writes the target table, so the two never disagree.
-- The role that loads needs no DDL and need not own anything:
--
--   grant usage on schema pgsluice to loader;
--   grant select, insert, delete on pgsluice.segment, pgsluice.message, pgsluice.reject to loader;
--   grant execute on function pgsluice.ensure_message_partitions(date, date) to loader;
--   grant insert on public.user_logins to loader;
--
-- `delete` is for on_reject = "leave", `replay --again` and `rejects retry`. The latter needs more:
--
--   grant update on pgsluice.segment, pgsluice.reject to loader;

create schema if not exists pgsluice;

comment on schema pgsluice is 'The ledger of pgsluice: which segments and messages are in their tables.';

-- A segment is what one transaction loaded. A segment that is here is never loaded again.
create table if not exists pgsluice.segment (
    id            uuid        primary key,
    pipeline      text        collate "C" not null,
    received      bigint      not null,
    loaded        bigint      not null,
    duplicates    bigint      not null,
    rejected      bigint      not null,
    first_sent_at timestamptz,
    last_sent_at  timestamptz,
    loaded_at     timestamptz not null default now(),
    host          text        not null,
    -- of the rejected: messages that were not recorded but stay in the queue, for its redrive policy (on_reject = "leave")
    left_in_queue uuid[]      not null default '{}',
    -- the transaction that recorded the segment's messages
    loaded_in     xid8        not null default pg_current_xact_id(),
    constraint segment_adds_up check (received = loaded + duplicates + rejected)
);

-- A message is here when its fate is decided: its row is in the target table, or it is in pgsluice.reject. A message
-- that is here and is delivered again is a duplicate. One partition a UTC day of sent_at. The time leads the key, so
-- that index inserts stay at the right edge. SQS keeps a message for at most 14 days: partitions of more than
-- 15 days ago can be dropped.
create table if not exists pgsluice.message (
    pipeline   text        collate "C" not null,
    sent_at    timestamptz not null,
    message_id uuid        not null,
    primary key (pipeline, sent_at, message_id)
) partition by range (sent_at);

-- Days that have no partition of their own: odd dates, and old files that are replayed.
create table if not exists pgsluice.message_default partition of pgsluice.message default;

-- A message that could not become a row, and why. Its body is in the staging directory, never here.
create table if not exists pgsluice.reject (
    pipeline    text        collate "C" not null,
    message_id  uuid        not null,
    segment     uuid        not null,
    stage       text        not null,
    field       text,
    reason      text        not null,
    rejected_at timestamptz not null default now(),
    primary key (pipeline, message_id)
);

-- Creates the missing partitions of pgsluice.message from first_day to last_day, as far as they lie between 15 days
-- ago and tomorrow: no other day is worth a partition. It runs with its owner's rights, so that the loading role
-- needs none to create tables.
--
-- A table is created, then attached: that takes no lock on pgsluice.message that stops loads, as CREATE TABLE …
-- PARTITION OF would. Two loaders at once take turns. A day whose rows already lie in the default partition stays
-- there, because such a day cannot be attached.
create or replace function pgsluice.ensure_message_partitions(first_day date, last_day date)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    today       constant date := (now() at time zone 'UTC')::date;
    partition_day date := greatest(first_day, today - 15);
    lower_bound text;
    upper_bound text;
    name        text;
begin
    perform pg_advisory_xact_lock(hashtextextended('pgsluice.ensure_message_partitions', 0));
    while partition_day <= least(last_day, today + 1) loop
        name := 'message_' || to_char(partition_day, 'YYYYMMDD');
        lower_bound := to_char(partition_day, 'YYYY-MM-DD') || ' 00:00:00+00';
        upper_bound := to_char(partition_day + 1, 'YYYY-MM-DD') || ' 00:00:00+00';
        partition_day := partition_day + 1;
        continue when to_regclass('pgsluice.' || name) is not null;
        continue when exists (
            select from pgsluice.message_default
            where sent_at >= lower_bound::timestamptz and sent_at < upper_bound::timestamptz
        );
        begin
            execute format('create table pgsluice.%I (like pgsluice.message including all)', name);
            execute format(
                'alter table pgsluice.message attach partition pgsluice.%I for values from (%L) to (%L)',
                name, lower_bound, upper_bound
            );
        exception when check_violation then
            null; -- rows of that day came into the default partition meanwhile
        end;
    end loop;
end
$$;

revoke all on function pgsluice.ensure_message_partitions(date, date) from public;
