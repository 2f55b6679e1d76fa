"""A Bucket in S3, or in what speaks like it."""
