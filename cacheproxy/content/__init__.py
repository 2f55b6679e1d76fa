"""From bytes to verified blobs."""
