-- What the functions of vector-shard health run with, and the views that show what they find.

-- Shards are hidden from pg_class unless this says otherwise; without Citus it has no effect.
ALTER FUNCTION fleet.vector_evidence() SET citus.show_shards_for_app_name_prefixes = '*';
