-- migrate:up

-- Events that a committed change has to say. The relay publishes them in this order and then marks them.
create table outbox (
    position bigint generated always as identity primary key,
    event_id text not null unique,
    subject text not null,
    entity text not null,
    headers jsonb not null,
    body bytea not null,
    created_at timestamptz not null default now(),
    published_at timestamptz
);
create index outbox_unpublished on outbox (position) where published_at is null;

-- Events whose effect is committed. A redelivery finds its row and does nothing.
create table inbox (
    consumer text not null,
    event_id text not null,
    handled_at timestamptz not null default now(),
    primary key (consumer, event_id)
);

-- Who works on what. The token grows with each holder and fences the writes of the earlier ones.
create table lease (
    name text primary key,
    holder text not null,
    token bigint not null,
    expires_at timestamptz not null
);

-- migrate:down
drop table lease;
drop table inbox;
drop table outbox;
