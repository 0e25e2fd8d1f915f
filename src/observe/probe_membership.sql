-- What a server with Citus knows of the cluster it is in, in one JSON value.
SELECT pg_catalog.json_build_object(
  -- Between pg_upgrade and citus_finish_pg_upgrade() there is none.
  'group_id', COALESCE((SELECT g.groupid FROM pg_catalog.pg_dist_local_group g LIMIT 1), -1),
  'nodes', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_dist_node),
  'rows', (
    SELECT COALESCE(pg_catalog.json_object_agg(d.nodeid, d.row), '{}') FROM (
      SELECT d.nodeid, pg_catalog.format('%s:%s of group %s', d.nodename, d.nodeport, d.groupid) AS row
      FROM pg_catalog.pg_dist_node d ORDER BY d.nodeid LIMIT 10000) d),
  'server_id', (SELECT m.metadata OPERATOR(pg_catalog.->>) 'server_id' FROM pg_catalog.pg_dist_node_metadata m LIMIT 1),
  'coordinator', (
    SELECT pg_catalog.min(d.nodename OPERATOR(pg_catalog.||) ':' OPERATOR(pg_catalog.||) d.nodeport::pg_catalog.text)
    FROM pg_catalog.pg_dist_node d
    WHERE d.groupid OPERATOR(pg_catalog.=) 0
      AND d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'),
  'nodeid', (
    SELECT pg_catalog.min(d.nodeid)
    FROM pg_catalog.pg_dist_node d JOIN pg_catalog.pg_dist_local_group g
      ON g.groupid OPERATOR(pg_catalog.=) d.groupid
    WHERE d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'),
  -- A cluster may have tens of thousands, and that it has some is what counts.
  'distributed_tables', (
    SELECT pg_catalog.count(*) FROM (SELECT FROM pg_catalog.pg_dist_partition LIMIT 1000) AS counted)
)::pg_catalog.text
