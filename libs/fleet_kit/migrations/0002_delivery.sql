-- migrate:up

-- Deliveries of short work that began and were not answered. A first delivery leaves no row; an answer removes it.
create table attempts (
    consumer text not null,
    message text not null,
    holder text not null,
    unanswered int not null default 0,
    started_at timestamptz not null default now(),
    primary key (consumer, message)
);
create index attempts_started on attempts (started_at);

-- The same count for long work, whose start is the taking of its lease.
alter table lease
    add column unanswered int not null default 0,
    add column released boolean not null default true;

-- Where JetStream stored a published event, so that it can be published again when the server lost its newest messages.
alter table outbox
    add column stream text,
    add column sequence bigint;
create index outbox_published on outbox (published_at) where published_at is not null;
create index outbox_sequence on outbox (stream, sequence) where published_at is not null;

-- Up to when the published rows of a stream were found in it, and in which server process and making of the stream.
create table outbox_check (
    stream text primary key,
    server text not null,
    created timestamptz,
    checked_at timestamptz not null
);

-- Retention deletes by age.
create index inbox_handled on inbox (consumer, handled_at);
create index lease_expired on lease (expires_at);

-- Readiness writes here.
create table probe (
    id boolean primary key default true check (id),
    written_at timestamptz not null
);

-- migrate:down
drop table probe;
drop index lease_expired;
drop index inbox_handled;
drop table outbox_check;
drop index outbox_sequence;
drop index outbox_published;
alter table outbox drop column sequence, drop column stream;
alter table lease drop column released, drop column unanswered;
drop table attempts;
