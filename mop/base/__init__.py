"""What everything else stands on: errors, configuration, files, worker processes; imports no other room."""
