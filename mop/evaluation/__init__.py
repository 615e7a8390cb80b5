"""Policy x worlds -> results and routing data, as trained or with changed routing."""
