"""What is deployed: what the next deploy changes and costs, and the commands that do it."""
