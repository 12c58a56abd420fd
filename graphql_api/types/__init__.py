"""The schema's object types. A row of `db` stands in for each; the fields read it by attribute."""
