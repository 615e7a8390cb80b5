"""The studies behind the published numbers, as code; what they wrote is in results/."""
