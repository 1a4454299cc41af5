-- migrate:up

-- What the caller's token reached when the build was asked for; "*" is every domain. Builds from before have the
-- rights of their own domain.
alter table dataset_builds add column requested_domains text[];
update dataset_builds set requested_domains = array[domain];
alter table dataset_builds alter column requested_domains set not null;

-- migrate:down
alter table dataset_builds drop column requested_domains;
