"""What simulator_viz.py shows."""
