"""What every stage needs: errors, settings, files, random streams, worker processes."""
