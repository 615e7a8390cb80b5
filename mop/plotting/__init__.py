"""Numbers -> figures, without pyplot and without files; imports base and measures."""
