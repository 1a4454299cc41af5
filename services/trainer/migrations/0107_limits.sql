-- migrate:up

-- Which ticket (a DatasetQueued, by the lease that its worker holds) has a build. A build whose lease has run out waits
-- again. When a domain was last served decides whose turn it is.
alter table dataset_builds
    add column claim_lease text not null default '',
    add column claim_token bigint not null default 0,
    add column claimed_at timestamptz;
create index dataset_builds_open on dataset_builds (domain, created_at) where state in ('queued', 'running');
create index dataset_builds_claimed on dataset_builds (domain, claimed_at desc) where claimed_at is not null;

-- A build is held while the lease of the ticket that claimed it lives, under the token with which it was claimed.
create view open_dataset_builds as
    select build.build_id, build.domain, lease.name is not null as held
    from dataset_builds build
    left join lease on build.state = 'running' and lease.name = build.claim_lease and lease.token = build.claim_token
        and lease.expires_at > now()
    where build.state in ('queued', 'running');

-- An upload that nobody has used for long expires.
alter table uploads add column used_at timestamptz not null default now();

-- migrate:down
alter table uploads drop column used_at;
drop view open_dataset_builds;
drop index dataset_builds_claimed;
drop index dataset_builds_open;
alter table dataset_builds drop column claimed_at, drop column claim_token, drop column claim_lease;
