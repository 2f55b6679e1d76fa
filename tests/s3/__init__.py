"""What stands between the server and S3 in tests: a proxy that counts, delays and breaks calls."""
