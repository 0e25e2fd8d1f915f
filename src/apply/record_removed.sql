-- Records a worker that is about to be removed, and what Citus will leave on it: copies of
-- reference tables, and shards that it has moved away and not dropped yet.
-- $1: nodeid; $2: groupid; $3: nodename; $4: nodeport; $5: whether its server answers as itself.
WITH placements AS (
  SELECT
    -- shard_name() leaves the schema public out, and only that.
    CASE WHEN n.nspname OPERATOR(pg_catalog.=) 'public' THEN 'public.' ELSE '' END
      OPERATOR(pg_catalog.||) pg_catalog.shard_name(s.logicalrelid, s.shardid) AS name
  FROM pg_catalog.pg_dist_placement p
  JOIN pg_catalog.pg_dist_shard s ON s.shardid OPERATOR(pg_catalog.=) p.shardid
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.logicalrelid::pg_catalog.oid
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  WHERE p.groupid OPERATOR(pg_catalog.=) $2
  UNION
  SELECT d.object_name
  FROM pg_catalog.pg_dist_cleanup d
  WHERE d.node_group_id OPERATOR(pg_catalog.=) $2
    -- CLEANUP_OBJECT_SHARD_PLACEMENT of Citus's shard_cleaner.h.
    AND d.object_type OPERATOR(pg_catalog.=) 1
), leftovers AS (
  SELECT ARRAY(SELECT p.name FROM placements p ORDER BY p.name) AS relations
), recorded AS (
  INSERT INTO fleet.removed (system_identifier, nodename, nodeport, address, mark, relations)
  SELECT i.system_identifier, $3, $4,
    -- The controller cleans it there; one that does not answer is not waited for.
    CASE WHEN $5 THEN
      (SELECT w.address FROM fleet.workers w WHERE w.nodeid OPERATOR(pg_catalog.=) $1) END,
    i.mark, l.relations
  FROM fleet.identities i, leftovers l
  WHERE i.nodeid OPERATOR(pg_catalog.=) $1
  ON CONFLICT (system_identifier) DO UPDATE
  SET nodename = EXCLUDED.nodename, nodeport = EXCLUDED.nodeport, address = EXCLUDED.address,
      mark = EXCLUDED.mark, relations = EXCLUDED.relations, removed_at = EXCLUDED.removed_at, removed_by = EXCLUDED.removed_by,
      cleaned_at = NULL
  RETURNING true AS is_recorded
)
SELECT pg_catalog.bool_or(r.is_recorded) FROM recorded r
