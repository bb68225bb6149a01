"""What livestem talks about: fields, grids, scans, parameters, regions. No I/O; numpy and msgspec at most."""
