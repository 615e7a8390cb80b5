"""BabyAI gridworlds, symbolic views."""
