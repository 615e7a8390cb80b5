"""BabyAI: worlds as arrays, their teacher, missions, pictures."""
