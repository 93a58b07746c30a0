"""What runs while the image is built: standard library only, for nothing else is there yet."""
