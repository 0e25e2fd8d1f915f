-- What the coordinator's Citus catalogs say, in one JSON value.
-- $1: whether to look for workers without shards.
WITH removals AS (
  -- fleet.remove_worker() holds a lock on the node for as long as it runs (apply::removal).
  SELECT l.objid::pg_catalog.int8 AS nodeid
  FROM pg_catalog.pg_locks l
  WHERE l.locktype OPERATOR(pg_catalog.=) 'userlock' AND l.granted
    AND l.classid OPERATOR(pg_catalog.=) 1718379877 AND l.objsubid OPERATOR(pg_catalog.=) 1
), jobs AS (
  SELECT j.job_id
  FROM pg_catalog.pg_dist_background_job j
  WHERE j.state::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{scheduled,running,cancelling,failing}')
), tasks AS (
  SELECT involved.nodeid, pg_catalog.count(*) AS total,
         pg_catalog.count(*) FILTER (WHERE t.status::pg_catalog.text OPERATOR(pg_catalog.=) 'done') AS done
  FROM jobs j
  JOIN pg_catalog.pg_dist_background_task t ON t.job_id OPERATOR(pg_catalog.=) j.job_id
  CROSS JOIN LATERAL pg_catalog.unnest(t.nodes_involved) involved (nodeid)
  GROUP BY involved.nodeid
), placements AS (
  -- Reference tables (repmodel t) are on every node and move nowhere.
  SELECT p.groupid
  FROM pg_catalog.pg_dist_placement p
  JOIN pg_catalog.pg_dist_shard s ON s.shardid OPERATOR(pg_catalog.=) p.shardid
  JOIN pg_catalog.pg_dist_partition t ON t.logicalrelid OPERATOR(pg_catalog.=) s.logicalrelid
  WHERE t.repmodel OPERATOR(pg_catalog.<>) 't'
)
SELECT pg_catalog.json_build_object(
  'version', (SELECT e.extversion FROM pg_catalog.pg_extension e
              WHERE e.extname OPERATOR(pg_catalog.=) 'citus'),
  'server_id', (SELECT m.metadata OPERATOR(pg_catalog.->>) 'server_id' FROM pg_catalog.pg_dist_node_metadata m LIMIT 1),
  'group_id', (SELECT g.groupid FROM pg_catalog.pg_dist_local_group g LIMIT 1),
  'nodes', ARRAY(
    SELECT pg_catalog.json_build_object(
      'nodeid', d.nodeid, 'groupid', d.groupid, 'nodename', d.nodename, 'nodeport', d.nodeport,
      'isactive', d.isactive, 'hasmetadata', d.hasmetadata, 'metadatasynced', d.metadatasynced,
      'is_primary', d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary',
      'shouldhaveshards', d.shouldhaveshards,
      -- Columns that Citus has from 13.2 on.
      'clone_of', CASE WHEN (pg_catalog.to_jsonb(d) OPERATOR(pg_catalog.->>) 'nodeisclone')::pg_catalog.bool THEN
        (pg_catalog.to_jsonb(d) OPERATOR(pg_catalog.->>) 'nodeprimarynodeid')::pg_catalog.int4 END,
      'is_being_removed', d.nodeid OPERATOR(pg_catalog.=) ANY (SELECT r.nodeid FROM removals r),
      'placements', CASE WHEN NOT d.shouldhaveshards AND d.groupid OPERATOR(pg_catalog.<>) 0 THEN
        (SELECT pg_catalog.count(*) FROM placements p WHERE p.groupid OPERATOR(pg_catalog.=) d.groupid) END,
      'waits_for_shards', $1 AND d.shouldhaveshards
        AND EXISTS (SELECT FROM fleet.identities i
                    WHERE i.nodeid OPERATOR(pg_catalog.=) d.nodeid AND i.rebalanced_at IS NULL)
        AND NOT EXISTS (SELECT FROM placements p WHERE p.groupid OPERATOR(pg_catalog.=) d.groupid)
        AND EXISTS (SELECT FROM placements p WHERE p.groupid OPERATOR(pg_catalog.<>) d.groupid),
      'tasks', CASE WHEN t.total IS NOT NULL THEN
        pg_catalog.json_build_object('done', t.done, 'total', t.total) END)
    FROM pg_catalog.pg_dist_node d
    LEFT JOIN tasks t ON t.nodeid OPERATOR(pg_catalog.=) d.nodeid
    ORDER BY d.nodeid),
  'is_job_running', EXISTS (SELECT FROM jobs)
)::pg_catalog.text
