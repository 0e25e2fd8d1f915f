-- The placements of tables that Citus knows, in one JSON value. $1: the tables.
SELECT pg_catalog.json_build_object(
  'known', (
    SELECT COALESCE(pg_catalog.json_agg(p.logicalrelid::pg_catalog.oid::pg_catalog.int8), '[]')
    FROM pg_catalog.pg_dist_partition p
    WHERE p.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])),
  'own', (
    SELECT pg_catalog.json_build_object(
      'nodeid', d.nodeid, 'nodename', d.nodename, 'nodeport', d.nodeport)
    FROM pg_catalog.pg_dist_node d
    WHERE d.groupid OPERATOR(pg_catalog.=) 0
      AND d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'),
  'placements', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'node', pg_catalog.json_build_object(
        'nodeid', d.nodeid, 'nodename', d.nodename, 'nodeport', d.nodeport),
      'shardid', s.shardid,
      'name', pg_catalog.format('%I.%I', n.nspname, parts.names[pg_catalog.array_upper(parts.names, 1)]))
      ORDER BY d.nodeid, s.shardid), '[]')
    FROM pg_catalog.pg_dist_shard s
    JOIN pg_catalog.pg_dist_placement p ON p.shardid OPERATOR(pg_catalog.=) s.shardid
    JOIN pg_catalog.pg_dist_node d ON d.groupid OPERATOR(pg_catalog.=) p.groupid
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.logicalrelid::pg_catalog.oid
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    CROSS JOIN LATERAL (
      SELECT pg_catalog.parse_ident(pg_catalog.shard_name(s.logicalrelid, s.shardid))) AS parts (names)
    WHERE s.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
      -- 4: left behind by a move, to be dropped.
      AND p.shardstate OPERATOR(pg_catalog.<>) 4
      AND d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary')
)::pg_catalog.text
