"""Reports on runs and sweeps, finished or not: read from their directories and compared with the papers."""
