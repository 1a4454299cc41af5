-- migrate:up

-- When a replica gave a version up; a later load stands against it.
alter table replica add column unloaded_at timestamptz;

-- Updates that were recommended: once for each two versions.
create table update_recommendation (
    running text not null references adapter,
    available text not null references adapter,
    recommended_at timestamptz not null,
    applied boolean not null,
    reason text not null,
    primary key (running, available)
);

-- migrate:down
drop table update_recommendation;
alter table replica drop column unloaded_at;
