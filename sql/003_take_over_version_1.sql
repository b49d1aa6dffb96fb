-- Takes over the rows of a ledger of version 1 that 001 set aside, and removes it. Elsewhere this changes nothing.
--
-- The owner of a message is the segment that the same transaction recorded. After a dump and restore nothing tells it;
-- then the owner is 0.
--
-- It waits for loads of version 1 that are under way, so that what they commit is taken over, too. Loads and
-- `rejects retry` of version 1 lock the tables in different orders. So nothing is held while this waits for a table: where
-- another table is in use then, all are given back, and the next attempt waits for that one.
do $$
declare
    tables  constant text[] := array['segment', 'reject', 'message'];
    attempt integer := 0;
    waited  boolean;
    loader  name;
begin
    if to_regnamespace('pgsluice_1') is null then
        return;
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'the ledger of version 1 can be taken over in a transaction that is READ COMMITTED alone';
    end if;
    -- Version 1 makes partitions under this lock, too.
    perform pg_advisory_xact_lock(hashtextextended('pgsluice.ensure_message_partitions', 0));
    loop
        begin
            waited := false;
            execute format('lock table pgsluice_1.%I in access exclusive mode', tables[1 + attempt % 3]);
            waited := true;
            lock table pgsluice_1.segment, pgsluice_1.reject, pgsluice_1.message in access exclusive mode nowait;
            exit;
        exception when lock_not_available then
            -- The role's lock_timeout ended the wait.
            if not waited then
                raise;
            end if;
            attempt := attempt + 1;
        end;
    end loop;

    insert into pgsluice.pipeline (name)
    select pipeline from pgsluice_1.segment union
    select pipeline from pgsluice_1.message union
    select pipeline from pgsluice_1.reject
    on conflict do nothing;

    insert into pgsluice.segment (
        pipeline, id, segment_no, received, loaded, duplicates, rejected, rows,
        first_sent_at, last_sent_at, loaded_at, host, left_in_queue
    )
    select pipeline.id, old.id, nextval('pgsluice.segment_no'), received, loaded, duplicates, rejected, loaded,
        first_sent_at, last_sent_at, loaded_at, host, left_in_queue
    from (select * from pgsluice_1.segment order by loaded_at) as old
    join pgsluice.pipeline on pipeline.name = old.pipeline;

    perform pgsluice.ensure_message_partitions(
        coalesce(array_agg(distinct (sent_at at time zone 'UTC')::date - date '1970-01-01'), '{}')
    )
    from pgsluice_1.message;
    insert into pgsluice.message (pipeline, sent_at, message_id, segment_no)
    select pipeline.id, old.sent_at, old.message_id, coalesce(segment.segment_no, 0)
    from pgsluice_1.message as old
    join pgsluice.pipeline on pipeline.name = old.pipeline
    left join pgsluice_1.segment as owner on owner.loaded_in::xid = old.xmin and owner.pipeline = old.pipeline
    left join pgsluice.segment on segment.pipeline = pipeline.id and segment.id = owner.id;

    insert into pgsluice.reject (pipeline, segment_no, message_id, stage, field, reason, rejected_at)
    select pipeline.id, coalesce(segment.segment_no, 0), old.message_id, old.stage, old.field, old.reason, old.rejected_at
    from pgsluice_1.reject as old
    join pgsluice.pipeline on pipeline.name = old.pipeline
    left join pgsluice.segment on segment.pipeline = pipeline.id and segment.id = old.segment;

    -- Who could load can load.
    for loader in
        select distinct rolname from pg_class, aclexplode(relacl) as granted join pg_roles on pg_roles.oid = granted.grantee
        where pg_class.oid = 'pgsluice_1.message'::regclass and granted.privilege_type = 'INSERT'
            and granted.grantee <> relowner
    loop
        execute format('grant usage on schema pgsluice to %I', loader);
        execute format('grant select on all tables in schema pgsluice to %I', loader);
        execute format('grant insert on pgsluice.pipeline, pgsluice.segment, pgsluice.message, pgsluice.reject, '
            'pgsluice.masking to %I', loader);
        execute format('grant usage on sequence pgsluice.segment_no to %I', loader);
        execute format('grant execute on function pgsluice.ensure_message_partitions(integer[]), pgsluice.prune() to %I',
            loader);
        if has_table_privilege(loader, 'pgsluice_1.message', 'DELETE') then
            execute format('grant update, delete on pgsluice.segment, pgsluice.message, pgsluice.reject to %I', loader);
            execute format('grant update on pgsluice.pipeline to %I', loader);
        end if;
    end loop;
    drop schema pgsluice_1 cascade;
end
$$;
