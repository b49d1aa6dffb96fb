-- The table of the built-in pipeline `user_logins`. Masked columns hold what `pgsluice reveal` can turn back.
create table if not exists public.user_logins (
    user_id          varchar(128),
    device_type      varchar(32),
    masked_ip        varchar(256),
    masked_device_id varchar(256),
    locale           varchar(32),
    app_version      integer,
    create_date      date
);
