-- A domain that is suspended suspends the destinations that its mail comes to, also those of later: this says for which
-- domain a destination was, so that it is resumed with it. NULL: for itself.
ALTER TABLE spool.suspension ADD COLUMN IF NOT EXISTS domain text;
