"""BabyAI: worlds as arrays, their teacher, missions and pictures; imports base, store and kernels."""
