"""The files that stages exchange: run paths, checkpoints, results, routing data; read without torch and pandas."""
