"""The wire: from HTTP requests to the registry and back."""
