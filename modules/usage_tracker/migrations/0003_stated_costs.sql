-- What the client says that a request cost stays beside our own figure, and the speed or tier of
-- service that it was answered at.

ALTER TABLE request ADD COLUMN service_tier INTEGER;
ALTER TABLE request ADD COLUMN stated_nano_usd INTEGER;
