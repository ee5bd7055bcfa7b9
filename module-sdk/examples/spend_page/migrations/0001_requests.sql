-- A request, by the id of the event that told of it: told twice, it counts once.
CREATE TABLE request (id BLOB PRIMARY KEY, cost_nano_usd INTEGER) WITHOUT ROWID;
