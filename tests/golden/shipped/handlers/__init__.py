"""One module per handler: the request models and graph builders of its endpoints."""
