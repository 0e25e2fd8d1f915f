-- The last measured recall of every index of every placement.

CREATE TABLE fleet.recall_results (
  relation regclass NOT NULL,
  nodename text NOT NULL,
  nodeport integer NOT NULL,
  shardid bigint,
  placement text NOT NULL,
  index text NOT NULL,
  filenode bigint NOT NULL,
  settings text NOT NULL,
  k integer NOT NULL,
  queries integer NOT NULL,
  recall double precision NOT NULL,
  deviation double precision NOT NULL,
  ci_low double precision,
  ci_high double precision,
  p10 double precision NOT NULL,
  returned_ratio double precision NOT NULL,
  rows bigint NOT NULL,
  written bigint NOT NULL,
  counted_since double precision,
  duration interval NOT NULL,
  note text,
  measured_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  CONSTRAINT recall_results_pkey PRIMARY KEY (nodename, nodeport, placement, index)
);
