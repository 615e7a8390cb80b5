"""Numbers -> figures, without pyplot and without files."""
