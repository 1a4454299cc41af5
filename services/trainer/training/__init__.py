"""What runs in the training subprocess: files in, files and progress out. Knows no bus, database or object store."""
