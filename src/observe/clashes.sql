-- Which of the relations that candidates have are distributed tables here, in one JSON value: each is
-- looked up by itself, for there may be ten thousand tables of one name. $1: their schemas; $2: their names.
SELECT COALESCE(pg_catalog.json_agg(
  pg_catalog.json_build_object('schema', theirs.schema, 'name', theirs.name)), '[]')::pg_catalog.text
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
  AS theirs (schema, name)
JOIN pg_catalog.pg_dist_partition p ON p.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=)
  pg_catalog.to_regclass(pg_catalog.format('%I.%I', theirs.schema, theirs.name))::pg_catalog.oid
