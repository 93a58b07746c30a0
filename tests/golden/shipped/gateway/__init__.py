"""The HTTP API: requests in, jobs on a backend, replies out."""
