-- migrate:up

-- Tokens that are good no more before their end: one by its id, or all of a subject that were issued until then.
create table revoked_token (
    named_by text not null,
    value text not null,
    revoked_at timestamptz not null,
    until timestamptz not null,
    revoked_by text not null,
    reason text not null,
    primary key (named_by, value)
);

-- migrate:down
drop table revoked_token;
