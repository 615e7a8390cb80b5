"""What depends on the kind of world: one folder for each, with equal file names."""
