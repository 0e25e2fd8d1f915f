-- Vectors and their indexes.
CREATE EXTENSION vector;
