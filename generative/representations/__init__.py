"""What the hidden state holds: decompositions, probes, and what moving it does."""
