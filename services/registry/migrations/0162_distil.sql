-- migrate:up

alter table base_model_migration drop constraint base_model_migration_strategy_check,
    add constraint base_model_migration_strategy_check check (strategy in ('convert', 'retrain', 'distil'));

-- migrate:down
delete from base_model_migration where strategy = 'distil';
alter table base_model_migration drop constraint base_model_migration_strategy_check,
    add constraint base_model_migration_strategy_check check (strategy in ('convert', 'retrain'));
