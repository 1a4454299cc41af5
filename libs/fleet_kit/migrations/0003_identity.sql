-- migrate:up

-- An event is known by its source and its id. Rows written before, or by a release that knows no source, have none.
alter table inbox add column source text not null default '';
alter table inbox drop constraint inbox_pkey, add primary key (consumer, event_id, source);

-- migrate:down
delete from inbox where exists (
    select from inbox as other
    where other.consumer = inbox.consumer and other.event_id = inbox.event_id and other.source < inbox.source
);
alter table inbox drop constraint inbox_pkey, add primary key (consumer, event_id);
alter table inbox drop column source;
