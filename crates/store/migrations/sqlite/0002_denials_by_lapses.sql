-- Most entries never lapse: those are not in it.
CREATE INDEX denials_by_lapses ON denials (lapses) WHERE lapses IS NOT NULL;
