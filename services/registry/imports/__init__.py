"""Adapters from elsewhere: files in other tools' forms, archives, an S3 prefix, a repository of a model hub."""
