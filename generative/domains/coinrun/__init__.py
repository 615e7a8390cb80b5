"""CoinRun and other games of Procgen, frames."""
