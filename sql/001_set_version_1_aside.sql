-- Version 1 of the ledger kept pipelines by name and did not know which segment owns a message. Where it is found, its
-- schema is set aside; 003 takes its rows over. Elsewhere this changes nothing.
do $$
begin
    if to_regclass('pgsluice.segment') is not null and to_regclass('pgsluice.ledger_version') is null then
        alter schema pgsluice rename to pgsluice_1;
    end if;
end
$$;
