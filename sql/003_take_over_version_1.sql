-- Takes over the rows of a ledger of version 1 that 001 set aside, and removes it. Elsewhere this changes nothing.
--
-- The owner of a message is the segment that the same transaction recorded. After a dump and restore nothing tells it;
-- then the owner is 0.
do $$
declare
    loader name;
begin
    if to_regnamespace('pgsluice_1') is null then
        return;
    end if;
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
