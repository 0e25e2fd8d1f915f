-- What there is to measure of a relation, in one JSON value: whether it has vectors at all, and each
-- of its leaves. $1: the relation.
WITH vectors AS (
  SELECT a.atttypmod
  FROM pg_catalog.pg_attribute a
  WHERE a.attrelid OPERATOR(pg_catalog.=) $1
    AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
    AND NOT a.attisdropped
    AND (a.atttypid OPERATOR(pg_catalog.=) 'pg_catalog.bit'::pg_catalog.regtype::pg_catalog.oid
      OR a.atttypid OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT d.objid
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
        WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid
          AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
          AND d.deptype OPERATOR(pg_catalog.=) 'e'
          AND e.extname OPERATOR(pg_catalog.=) 'vector')))
), leaves AS (
  SELECT c.oid, c.relname, c.relkind, n.nspname
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
  WHERE c.relkind OPERATOR(pg_catalog.<>) 'p'
    AND (c.oid OPERATOR(pg_catalog.=) $1 OR c.oid OPERATOR(pg_catalog.=) ANY (ARRAY(
      SELECT t.relid::pg_catalog.oid
      FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t
      WHERE t.isleaf)))
)
SELECT pg_catalog.json_build_object(
  'has_vectors', EXISTS (SELECT FROM vectors)
    OR EXISTS (
      SELECT FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
      JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) c.relam
      WHERE i.indrelid OPERATOR(pg_catalog.=) $1
        AND m.amname OPERATOR(pg_catalog.=) ANY (ARRAY['hnsw', 'ivfflat']::pg_catalog.name[])),
  'lacks_dimensions', EXISTS (
    SELECT FROM vectors v WHERE v.atttypmod OPERATOR(pg_catalog.<) 0),
  'leaves', (
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', l.oid::pg_catalog.int8,
      'name', pg_catalog.format('%I.%I', l.nspname, l.relname),
      'foreign', l.relkind OPERATOR(pg_catalog.=) 'f')
      ORDER BY l.nspname, l.relname), '[]')
    FROM leaves l)
)::pg_catalog.text
