-- Distributed tables. The vendor's image has a script of this name, which this one replaces.
CREATE EXTENSION citus;
