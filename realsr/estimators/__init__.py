"""One photo's blur kernel from the photo alone."""
