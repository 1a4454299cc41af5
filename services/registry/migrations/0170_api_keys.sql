-- migrate:up

-- API keys. Of a key's secret only its SHA-256 is kept.
create table api_key (
    key_id text primary key,
    name text not null,
    secret_sha256 text not null,
    scopes text[] not null,
    domains text[] not null,
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    last_used_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    reason text not null default ''
);
create index api_key_expires_at on api_key (expires_at) where revoked_at is null;

-- migrate:down
drop table api_key;
