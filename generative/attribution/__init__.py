"""Which earlier thing caused a decision, and whether that is true in a cloned world."""
