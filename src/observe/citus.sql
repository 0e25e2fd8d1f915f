-- What the coordinator's Citus catalogs say, in one JSON value.
-- $1: the role that the controller logs in to workers as.
SELECT pg_catalog.json_build_object(
  'facts', pg_catalog.json_build_object(
    'version', (SELECT e.extversion FROM pg_catalog.pg_extension e
                WHERE e.extname OPERATOR(pg_catalog.=) 'citus'),
    'group_id', (SELECT g.groupid FROM pg_catalog.pg_dist_local_group g LIMIT 1),
    'nodes', ARRAY(
      SELECT pg_catalog.json_build_object(
        'nodeid', d.nodeid, 'groupid', d.groupid, 'nodename', d.nodename, 'nodeport', d.nodeport,
        'isactive', d.isactive, 'hasmetadata', d.hasmetadata, 'metadatasynced', d.metadatasynced,
        'is_primary', d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary')
      FROM pg_catalog.pg_dist_node d
      ORDER BY d.nodeid),
    'distributed_tables', ARRAY(
      SELECT n.nspname::pg_catalog.text OPERATOR(pg_catalog.||) '.'
             OPERATOR(pg_catalog.||) c.relname::pg_catalog.text
      FROM pg_catalog.pg_dist_partition p
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.logicalrelid::pg_catalog.oid
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace)),
  'authinfo', (
    SELECT pg_catalog.json_object_agg(a.nodeid, a.authinfo)
    FROM pg_catalog.pg_dist_authinfo a
    WHERE a.rolename OPERATOR(pg_catalog.=) $1::pg_catalog.name)
)::pg_catalog.text
