-- migrate:up

-- How far a recorded answer's prompt is from what an adapter was trained on; a deleted answer takes its distances along.
create table answer_distances (
    adapter_id text not null,
    generation_id text not null references answers on delete cascade,
    distance double precision not null,
    recorded_at timestamptz not null,
    primary key (adapter_id, generation_id)
);
create index answer_distances_of_answer on answer_distances (generation_id);
create index erasures_by_adapter on erasures using gin (adapters);

-- migrate:down
drop index erasures_by_adapter;
drop table answer_distances;
