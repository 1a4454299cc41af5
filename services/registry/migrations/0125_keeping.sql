-- migrate:up

-- held: somebody wants the version's files kept. released_at: since when they may be deleted; it never serves again.
alter table adapter
    add column held boolean not null default false,
    add column released_at timestamptz,
    add check (released_at is null or not active);

-- migrate:down
alter table adapter drop column released_at, drop column held;
