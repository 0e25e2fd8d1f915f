-- What has to outlive the controller. Sessions read; the controller and fleet.pause() write.

CREATE TABLE fleet.events (
  id bigint GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  nodename text NOT NULL,
  nodeport integer NOT NULL,
  nodeid integer,
  event text NOT NULL,
  code text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}'
);

-- The newest event of each worker, which the controller reads when it starts.
-- By id, because a clock may be set back.
CREATE INDEX events_worker_idx ON fleet.events (nodename, nodeport, id DESC);
CREATE INDEX events_at_idx ON fleet.events (at);

CREATE TABLE fleet.control (
  singleton boolean NOT NULL DEFAULT true,
  paused boolean NOT NULL DEFAULT false,
  changed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  changed_by name NOT NULL DEFAULT SESSION_USER,
  CONSTRAINT control_pkey PRIMARY KEY (singleton),
  CONSTRAINT control_has_one_row CHECK (singleton)
);

INSERT INTO fleet.control DEFAULT VALUES;

-- A dump brings its row where CREATE EXTENSION has put one already: what the operator had decided counts.
CREATE FUNCTION fleet.replace_control() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  UPDATE fleet.control SET paused = NEW.paused, changed_at = NEW.changed_at, changed_by = NEW.changed_by;
  RETURN CASE WHEN NOT FOUND THEN NEW END;
END $$;

CREATE TRIGGER control_is_replaced BEFORE INSERT ON fleet.control
FOR EACH ROW EXECUTE FUNCTION fleet.replace_control();

-- Who each registered worker is. The controller follows a worker only by what is recorded here.
CREATE TABLE fleet.identities (
  nodeid integer NOT NULL,
  system_identifier bigint NOT NULL,
  timeline integer NOT NULL,
  history text,
  position pg_lsn,
  mark uuid,
  mark_position pg_lsn,
  lost_wal bigint NOT NULL DEFAULT 0,
  rival text,
  disabled_by_fleet boolean NOT NULL DEFAULT false,
  to_be_synced boolean NOT NULL DEFAULT false,
  recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  rebalanced_at timestamptz,
  CONSTRAINT identities_pkey PRIMARY KEY (nodeid)
);

-- On a worker: what the coordinator has left in its data, to tell it from servers that parted from it.
CREATE TABLE fleet.marks (
  mark uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
  position pg_lsn NOT NULL DEFAULT pg_catalog.pg_current_wal_insert_lsn(),
  written_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  CONSTRAINT marks_pkey PRIMARY KEY (mark)
);

-- Servers that fleet.remove_worker() has taken out: they stay out until fleet.enroll_worker().
CREATE TABLE fleet.removed (
  system_identifier bigint NOT NULL,
  nodename text NOT NULL,
  nodeport integer NOT NULL,
  address inet,
  relations text[] NOT NULL,
  mark uuid,
  removed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  removed_by name NOT NULL DEFAULT SESSION_USER,
  cleaned_at timestamptz,
  CONSTRAINT removed_pkey PRIMARY KEY (system_identifier)
);

-- pg_dump keeps what an operator has decided. Identities belong to nodeids, which a dump does not carry:
-- whoever is registered anew is seen anew. Events and recall are what was, elsewhere.
SELECT pg_catalog.pg_extension_config_dump('fleet.control', '');
SELECT pg_catalog.pg_extension_config_dump('fleet.removed', '');
