-- migrate:up

-- What the digests of people's names are keyed with. It stays here: whoever has events or proofs alone cannot try names.
create table subject_key (
    id boolean primary key default true check (id),
    key bytea not null
);
insert into subject_key (key)
select decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');

-- Which records are about whom, and the message that each came in (sequence 0: it came over HTTP). subject is the keyed
-- digest of the name. kind answer, feedback: record_id is the id of the answer.
create table subject_records (
    domain text not null,
    subject text not null,
    kind text not null check (kind in ('sample', 'preference', 'answer', 'feedback')),
    record_id text not null,
    stream text not null default '',
    sequence bigint not null default 0,
    recorded_at timestamptz not null default now(),
    primary key (subject, domain, kind, record_id, stream, sequence)
);
create index subject_records_by_record on subject_records (kind, record_id);

-- Whom live records are about: those that were recorded as somebody's, and those that answers or feedback made.
create function subjects_of(own text, ids text[], generations text[]) returns text[] language sql stable as $$
    select array(
        select distinct subject from subject_records
        where kind = own and record_id = any(ids) or kind in ('answer', 'feedback') and record_id = any(generations)
        order by 1
    )
$$;

-- Requests to forget somebody, and, once they are done, their proofs: they hold no name and no text. domain "*" is every
-- domain. state: requested, erasing, and erased where the trainer and every other service has erased what it held.
create table erasures (
    erasure_id text primary key,
    domain text not null,
    subject text not null,
    requested_by text not null,
    reason text not null,
    retire boolean not null,
    state text not null check (state in ('requested', 'erasing', 'erased')),
    requested_at timestamptz not null default now(),
    erased_at timestamptz,
    -- Data sets and adapters that held or learned from the records.
    datasets text[] not null default '{}',
    adapters text[] not null default '{}',
    -- Kind of what was deleted → how many, and SHA-256 over the sorted ids.
    deleted jsonb not null default '{}',
    late integer not null default 0,
    unique (subject, domain)
);
create index erasures_by_time on erasures (requested_at desc);

-- How far each service is.
create table erasure_services (
    erasure_id text not null references erasures,
    service text not null,
    state text not null check (state in ('requested', 'erasing', 'erased')),
    deleted bigint not null default 0,
    parts integer not null default 1,
    changed_at timestamptz not null default now(),
    primary key (erasure_id, service)
);
create table erasure_parts (
    erasure_id text not null references erasures,
    service text not null,
    part integer not null,
    primary key (erasure_id, service, part)
);

-- migrate:down
drop table erasure_parts;
drop table erasure_services;
drop table erasures;
drop function subjects_of;
drop table subject_records;
drop table subject_key;
