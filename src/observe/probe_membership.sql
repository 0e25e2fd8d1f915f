-- What a server with Citus knows of the cluster it is in, in one JSON value.
SELECT pg_catalog.json_build_object(
  'group_id', (SELECT g.groupid FROM pg_catalog.pg_dist_local_group g LIMIT 1),
  'nodes', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_dist_node),
  'distributed_tables', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_dist_partition)
)::pg_catalog.text
