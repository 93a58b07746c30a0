"""The app: request models, graph builders and their helpers, as deployed."""
