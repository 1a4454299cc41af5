-- migrate:up

-- Whom a golden sample is about; empty for nobody. A sample that was erased keeps its place and its id, and no text.
alter table golden_sample
    add column subject text not null default '',
    add column erased boolean not null default false;
create index golden_sample_subject on golden_sample (subject) where subject <> '';

-- Erasures that took samples out of a version: its digest is that of what was judged with, and it judges nothing more.
alter table golden_dataset add column erased_by text[] not null default '{}';

-- What digests of people's names are keyed with, and the people of whom no sample is taken. domain "*" is every domain.
create table subject_key (
    id boolean primary key default true check (id),
    key bytea not null
);
insert into subject_key (key)
select decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
create table forgotten_subject (
    subject text not null,
    domain text not null,
    erasure_id text not null,
    deleted bigint not null,
    forgotten_at timestamptz not null default now(),
    primary key (subject, domain)
);

create or replace function refuse_frozen() returns trigger language plpgsql as $$
begin
    if exists (
        select from golden_dataset g
        where g.dataset_id = coalesce(new.dataset_id, old.dataset_id)
            and g.version = coalesce(new.version, old.version) and g.frozen_at is not null
            and not (tg_op = 'DELETE' and g.let_go_at is not null)
            and not (tg_op = 'UPDATE' and new.erased and new.prompt = '' and new.sample_id = old.sample_id)
    ) then
        raise exception 'golden data set % version % is frozen', coalesce(new.dataset_id, old.dataset_id),
            coalesce(new.version, old.version) using errcode = 'integrity_constraint_violation';
    end if;
    return coalesce(new, old);
end $$;

-- migrate:down
create or replace function refuse_frozen() returns trigger language plpgsql as $$
begin
    if exists (
        select from golden_dataset g
        where g.dataset_id = coalesce(new.dataset_id, old.dataset_id)
            and g.version = coalesce(new.version, old.version) and g.frozen_at is not null
            and not (tg_op = 'DELETE' and g.let_go_at is not null)
    ) then
        raise exception 'golden data set % version % is frozen', coalesce(new.dataset_id, old.dataset_id),
            coalesce(new.version, old.version) using errcode = 'integrity_constraint_violation';
    end if;
    return coalesce(new, old);
end $$;
drop table forgotten_subject;
drop table subject_key;
alter table golden_dataset drop column erased_by;
drop index golden_sample_subject;
alter table golden_sample drop column subject, drop column erased;
