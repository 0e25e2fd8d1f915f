-- What the coordinator's Citus catalogs say of the tables with vectors, in one JSON value.
-- $1: oids of the coordinator's own relations with vectors, shell tables among them; $2: oids of their
-- vector indexes, $3: each one's table.
WITH shards AS MATERIALIZED (
  SELECT s.shardid, s.logicalrelid::pg_catalog.oid AS relation, p.partmethod, s.shardminvalue, s.shardmaxvalue
  FROM pg_catalog.pg_dist_shard s
  JOIN pg_catalog.pg_dist_partition p ON p.logicalrelid OPERATOR(pg_catalog.=) s.logicalrelid
  WHERE s.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
), named AS (
  -- What a table and its indexes are called on a shard: Citus appends the number, and is asked only for a
  -- name that has no room for that, which it shortens in a way of its own.
  SELECT s.shardid, o.oid, o.oid OPERATOR(pg_catalog.=) s.relation AS is_table,
    CASE WHEN pg_catalog.octet_length(c.relname::pg_catalog.text) OPERATOR(pg_catalog.+)
              pg_catalog.octet_length(s.shardid::pg_catalog.text) OPERATOR(pg_catalog.<) 63
      THEN pg_catalog.concat(c.relname, '_', s.shardid)
      ELSE (SELECT n.parts[pg_catalog.array_upper(n.parts, 1)]
            FROM (SELECT pg_catalog.parse_ident(
              pg_catalog.shard_name(o.oid::pg_catalog.regclass, s.shardid))) AS n (parts)) END AS name
  FROM shards s
  JOIN (
    SELECT t.oid, t.oid AS relation FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS t (oid)
    UNION ALL
    SELECT i.oid, i.relation
    FROM ROWS FROM (pg_catalog.unnest($2::pg_catalog.oid[]), pg_catalog.unnest($3::pg_catalog.oid[])) AS i (oid, relation)
  ) o ON o.relation OPERATOR(pg_catalog.=) s.relation
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.oid
)
SELECT pg_catalog.json_build_object(
  'nodes', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'nodeid', d.nodeid, 'groupid', d.groupid, 'nodename', d.nodename, 'nodeport', d.nodeport,
      'isactive', d.isactive, 'shouldhaveshards', d.shouldhaveshards) ORDER BY d.nodeid), '[]')
    FROM pg_catalog.pg_dist_node d
    WHERE d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'),
  'tables', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'relation', p.logicalrelid::pg_catalog.oid::pg_catalog.int8,
      'kind', CASE
        WHEN p.partmethod OPERATOR(pg_catalog.<>) 'n' THEN 'distributed'
        WHEN p.repmodel OPERATOR(pg_catalog.=) 't' THEN 'reference'
        WHEN p.colocationid OPERATOR(pg_catalog.=) 0 THEN 'local'
        ELSE 'schema' END,
      -- Citus's function for it would wait for whoever holds the table exclusively.
      'distribution_column', (
        SELECT a.attname FROM pg_catalog.pg_attribute a
        WHERE a.attrelid OPERATOR(pg_catalog.=) p.logicalrelid::pg_catalog.oid
          AND a.attnum OPERATOR(pg_catalog.=) pg_catalog.substring(p.partkey, ':varattno ([0-9]+)')::pg_catalog.int2))), '[]')
    FROM pg_catalog.pg_dist_partition p
    WHERE p.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])),
  'shards', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'shardid', s.shardid, 'relation', s.relation::pg_catalog.int8,
      'minimum', CASE WHEN s.partmethod OPERATOR(pg_catalog.=) 'h' THEN s.shardminvalue::pg_catalog.int8 END,
      'maximum', CASE WHEN s.partmethod OPERATOR(pg_catalog.=) 'h' THEN s.shardmaxvalue::pg_catalog.int8 END,
      'name', n.name, 'indexes', n.indexes)
      ORDER BY s.shardid), '[]')
    FROM shards s
    JOIN (
      SELECT n.shardid, pg_catalog.max(n.name) FILTER (WHERE n.is_table) AS name,
        COALESCE(pg_catalog.json_object_agg(n.oid::pg_catalog.int8, n.name) FILTER (WHERE NOT n.is_table), '{}') AS indexes
      FROM named n
      GROUP BY n.shardid) n ON n.shardid OPERATOR(pg_catalog.=) s.shardid),
  'placements', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'shardid', p.shardid, 'groupid', p.groupid, 'state', p.shardstate)
      ORDER BY p.shardid, p.groupid), '[]')
    FROM pg_catalog.pg_dist_placement p
    JOIN shards s ON s.shardid OPERATOR(pg_catalog.=) p.shardid
    WHERE p.shardstate OPERATOR(pg_catalog.<>) 4),
  'job', (
    SELECT pg_catalog.json_build_object(
      'id', j.job_id, 'state', j.state::pg_catalog.text, 'description', j.description,
      'message', (SELECT t.message FROM pg_catalog.pg_dist_background_task t
                  WHERE t.job_id OPERATOR(pg_catalog.=) j.job_id
                    AND t.status::pg_catalog.text OPERATOR(pg_catalog.=) 'error'
                  ORDER BY t.task_id LIMIT 1))
    FROM pg_catalog.pg_dist_background_job j
    ORDER BY j.job_id DESC LIMIT 1),
  'cleanups', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'groupid', c.node_group_id, 'object', c.object_name, 'policy', c.policy_type)
      ORDER BY c.record_id), '[]')
    FROM pg_catalog.pg_dist_cleanup c
    WHERE c.object_type OPERATOR(pg_catalog.=) 1)
)::pg_catalog.text
