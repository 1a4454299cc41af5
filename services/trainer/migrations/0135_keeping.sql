-- migrate:up

-- Versions that the registry has released: the files of these jobs may be deleted.
create table releases (
    job_id text primary key,
    adapter_id text not null,
    released_at timestamptz not null default now()
);

-- A data set whose file is deleted, by a retention rule or because somebody's records had to go. Its row stays: jobs,
-- cards and versions of adapters name it by its digest.
alter table datasets
    add column removed_at timestamptz,
    add column removed_because text not null default '';

create or replace view versioned_datasets as
    select versions.domain, versions.name, versions.version, versions.dataset_id, versions.query, versions.min_rating,
        versions.card_uri, versions.card_sha256, versions.card_bytes, versions.created_at,
        datasets.kind, datasets.samples, datasets.validation_samples, datasets.uri, datasets.sha256, datasets.bytes,
        datasets.removed_at, datasets.removed_because
    from dataset_versions versions join datasets using (dataset_id);

-- migrate:down
drop view versioned_datasets;
alter table datasets drop column removed_because, drop column removed_at;
create view versioned_datasets as
    select versions.*, datasets.kind, datasets.samples, datasets.validation_samples,
        datasets.uri, datasets.sha256, datasets.bytes
    from dataset_versions versions join datasets using (dataset_id);
drop table releases;
