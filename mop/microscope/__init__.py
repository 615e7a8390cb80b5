"""A page in which a policy runs, without a server: what Python packs, and the JavaScript that reads it."""
