"""S3: objects, mirrored folders, patience with backends."""
