"""Ground floor: what every other folder shares."""
